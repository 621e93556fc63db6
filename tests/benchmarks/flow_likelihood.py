"""The likelihood of flow_decoder.py's third decoder, beside that of the Gaussian decoder that it starts from.

    python tests/benchmarks/flow_likelihood.py --run runs/demo --epochs 4

The flow carries x_0 ~ N(g(z), diag sigma(z)^2) to x, so log p(x|z) is that of x_0 less the integral of the divergence
of v along the way (Chen et al. 2018), which one random vector of signs estimates without bias (Hutchinson). Printed is
the ELBO of evenly spaced test images with one z ~ q(z|x) each, dequantised to [0, 1] by uniform noise as in the
training of the flow, and in bits per dimension; ways are followed backward in twice as many steps as samples take.
"""

import argparse
import json
import math
import sys
from pathlib import Path

import torch
from flow_decoder import trained_velocity
from flow_network import Velocity
from torch import Tensor

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]

from data_shards.io.atomic import write_json  # noqa: E402
from data_shards.io.errors import command  # noqa: E402
from eval.images.blocks import image_noise, subset_blocks, subset_indices  # noqa: E402
from eval.run import load_run  # noqa: E402
from trainer.networks.model import Likelihood  # noqa: E402
from trainer.objectives.families import log_likelihood  # noqa: E402
from trainer.objectives.gaussian import kl_to_prior  # noqa: E402
from trainer.process_group import single  # noqa: E402


def with_divergence(model: Velocity, x: Tensor, t: float, z: Tensor, output: Likelihood) -> tuple[Tensor, Tensor]:
    """v, (B, 1, H, W), and an estimate of its divergence, (B,)."""
    signs = torch.randint(0, 2, x.shape).float() * 2 - 1
    with torch.enable_grad():
        x = x.detach().requires_grad_(True)
        v = model(x, torch.full((len(x),), t), z, output.mean, output.variance.sqrt())
        (product,) = torch.autograd.grad((v * signs).sum(), x)
    return v.detach(), (product * signs).sum((1, 2, 3))


def flow_log_likelihood(model: Velocity, x: Tensor, z: Tensor, output: Likelihood, steps: int) -> Tensor:
    """log p(x|z), (B,) in nats, by Heun's method from t = 1 to 0."""
    change = torch.zeros(len(x))
    for step in range(steps):
        t = 1 - step / steps
        first, one = with_divergence(model, x, t, z, output)
        second, other = with_divergence(model, x - first / steps, t - 1 / steps, z, output)
        x = x - (first + second) / (2 * steps)
        change += (one + other) / (2 * steps)
    return log_likelihood(x, output) - change


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", required=True, help="a run that flow_decoder.py trained a flow for")
    parser.add_argument("--epochs", type=int, required=True, help="of that training")
    parser.add_argument("--images", type=int, default=500, help="test images")
    parser.add_argument("--steps", type=int, default=12, help="of Heun's method")
    args = parser.parse_args()
    run = load_run(args.run, "final")
    model = trained_velocity(run, args.epochs).requires_grad_(False)
    torch.manual_seed(0)
    rows = []
    indices = subset_indices(run.manifest, "test", args.images)
    for _, index, image in subset_blocks(run.config.data.location, "test", indices, single()):
        with torch.no_grad():
            q = run.model.encode(image)
            z = q.mean + q.std * image_noise(0, index.tolist(), 1, run.model.latent_dim)[0]
            output, kl = run.model.decode(z), kl_to_prior(q.mean, q.std)
        x = (255 * image + torch.rand_like(image)) / 256
        flow = flow_log_likelihood(model, x, z, output, args.steps)
        rows.append(torch.stack([log_likelihood(x, output) - kl, flow - kl], 1))
    table = torch.cat(rows).double()
    found: dict[str, object] = {"epochs": args.epochs, "images": args.images, "steps": args.steps}
    for name, values in zip(("gaussian", "flow"), table.T, strict=True):
        found[f"{name}_elbo"] = round(float(values.mean()), 1)
        found[f"{name}_standard_error"] = round(float(values.std() / math.sqrt(len(values))), 1)
        found[f"{name}_bits_per_dimension"] = round(8 - float(values.mean()) / run.model.pixels / math.log(2), 3)
    write_json(run.folder / "eval" / f"flow-likelihood-{args.epochs}-epochs.json", found)
    print(json.dumps(found))


if __name__ == "__main__":
    command(main)
