"""Plans, and measurements of them as the commands write them."""

from eval.paper.evidence import Evidence
from eval.paper.jobs import method_training
from eval.paper.plan import Budget, Components, MixtureForm, Plan, Plane, Sweep
from eval.paper.record import Record

LABEL = MixtureForm().label


def plan(**fields) -> Plan:
    """A plan of three methods on Fashion-MNIST."""
    return Plan(
        **{
            "dataset": "fashion-mnist",
            "config": "trainer/configs/fashion_mnist.yaml",
            "shards": "nowhere",
            "budget": Budget(stage1_epochs=4, stage2_epochs=2),
            "methods": {
                "ours": {"objective.name": "sigma_vae"},
                "VAE": {"objective.name": "vae"},
                "WAE": {"objective.name": "wae_mmd"},
            },
            "plane": Plane(variances=()),
            "sweep": Sweep(variances=()),
            "components": Components(numbers=()),
            **fields,
        }
    )


def distance(value: float) -> dict:
    """A distance as `python -m eval fid` writes it, as far as pages look at it."""
    protocol = {
        "n": 10_000,
        "n_reference": 10_000,
        "split": "test",
        "seed": 0,
        "channels": "grey, repeated to three channels",
        "quantisation": "rounded to 8 bits",
        "source": "q_hat",
        "extractor": {"name": "efficientnet-lite0"},
    }
    return {
        "label": "FD (EfficientNet-Lite0, 64 px)",
        "values": {"frechet_distance": {"value": value, "standard_error": None, "unit": "squared feature units"}},
        "below_protocol": False,
        "protocol": protocol,
    }


def likelihood(q_hat: float, prior: float, *, cap: float, error: float = 0.01, kl: float = 3.0) -> dict:
    """A likelihood as `python -m eval likelihood` writes it, as far as pages look at it."""
    nats = {"iwae_q_hat": q_hat, "iwae_prior": prior, "elbo": prior - 5}
    values = {name: {"value": value, "standard_error": 2.0} for name, value in nats.items()}
    values |= {name: {"value": error, "standard_error": 0.0001} for name in ("mean_square_error",)}
    values |= {"bits_per_dimension_q_hat": {"value": 3.0, "standard_error": 0.01}}
    protocol = {
        "n": 500,
        "split": "test",
        "seed": 0,
        "subset": "evenly spaced",
        "importance_samples": 20,
        "pixel_scale": "[0, 1]",
        "mixture": "32-full",
        "image_shape": [1, 28, 28],
    }
    divergence = {"value": kl, "standard_deviation": 0.01}
    return {
        "values": values,
        "protocol": protocol,
        "cap": cap,
        "dataset_variance": error,
        "latent_kl": divergence,
    }


def evidence(made: Plan, results: dict[tuple[str, int], dict]) -> Evidence:
    """Evidence from the results of (method, seed)."""
    records = {
        method_training(made, method, seed).name: Record(
            configuration="c", data="d", commit="1234", training={"images": 10}, results=found
        )
        for (method, seed), found in results.items()
    }
    return Evidence(plan=made, records=records)
