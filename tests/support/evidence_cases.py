"""Plans, and results of their measurements."""

from typing import Any

from eval.paper.evidence import Evidence
from eval.paper.plan import Budget, Components, MixtureForm, Plan, Variances, method_trainings
from eval.paper.record import Record
from eval.protocol import DistanceProtocol, LikelihoodProtocol
from eval.results import DistanceResult, LatentDivergence, LikelihoodResult, Measured

LABEL = MixtureForm().label
RUN = {
    "run": "ours-seed0",
    "weights": "final",
    "checkpoint": "c",
    "data": "d",
    "split": "test",
    "image_shape": (1, 28, 28),
}
"""What all protocols here say of the run."""


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
            "plane": Variances(),
            "sweep": Variances(),
            "components": Components(),
            **fields,
        }
    )


def distance(value: float, source: str = "q_hat") -> DistanceResult:
    """A distance of 10,000 images."""
    return DistanceResult(
        label="FD (EfficientNet-Lite0, 64 px)",
        values={"frechet_distance": Measured(value=value, standard_error=None, unit="squared feature units")},
        also=(),
        below_protocol=False,
        remarks=(),
        protocol=DistanceProtocol(
            **RUN,
            n=10_000,
            source=source,
            latents="",
            n_reference=10_000,
            extractor={"name": "efficientnet-lite0"},
            channels="grey, repeated to three channels",
        ),
    )


def likelihood(q_hat: float, prior: float, *, cap: float, error: float = 0.01, kl: float = 3.0) -> LikelihoodResult:
    """A likelihood of 500 images."""
    values = {
        name: Measured(value=value, standard_error=deviation, unit="")
        for name, value, deviation in (
            ("iwae_q_hat", q_hat, 2.0),
            ("iwae_prior", prior, 2.0),
            ("elbo", prior - 5, 2.0),
            ("mean_square_error", error, 0.0001),
            ("bits_per_dimension_q_hat", 3.0, 0.01),
        )
    }
    return LikelihoodResult(
        values=values,
        active_dimensions=16,
        latent_kl=LatentDivergence(value=kl, standard_deviation=0.01, samples=10_000, runs=10, unit="nats"),
        cap=cap,
        dataset_variance=error,
        protocol=LikelihoodProtocol(
            **RUN,
            n=500,
            measure="likelihood 1",
            variance="one",
            variance_floor=error,
            importance_samples=20,
            mixture="32-full",
            mixture_digest="m",
        ),
    )


def evidence(made: Plan, results: dict[tuple[str, int], dict[str, Any]]) -> Evidence:
    """Evidence from the results of (method, seed)."""
    records = {
        one.name: Record(configuration="c", data="d", commit="1234", training={"images": 10}, results=found)
        for (method, seed), found in results.items()
        for one in method_trainings(made, method)
        if one.seed == seed
    }
    return Evidence(plan=made, records=records)
