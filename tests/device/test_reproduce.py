"""`python -m eval reproduce` on two GPUs that are pretended in all processes that it starts: a GPU a job."""

import json
from dataclasses import replace

import pytest
import torch
from device.sessions import numbers
from support.running import ROOT, run_module
from support.training import weights

from eval.paper.schedule import Work
from eval.paper.worker import Worker

# Two trainings, each with codes, a mixture and likelihoods; `sessions.COMMANDS` has all that a job can measure.
PLAN = """
dataset: mnist
config: trainer/configs/mnist.yaml
shards: {shards}
fields:
  data.global_batch: 20
  data.valid_images: 20
  model.latent_dim: 3
  model.encoder_channels: [8]
  model.decoder_channels: [8, 8]
  model.hidden: 16
  log.to: []
budget: {{stage1_epochs: 3, stage2_epochs: 2}}
seeds: [0, 1]
methods: {{ours: {{objective.name: sigma_vae}}}}
plane: {{variances: [], seeds: []}}
sweep: {{variances: [], seeds: []}}
components: {{numbers: [], seeds: []}}
measure:
  mixture: {{components: 2, encodings: posterior}}
  distance_images: 16
  likelihood_images: 5
  importance_samples: 2
  memorisation_images: 4
"""


@pytest.fixture(scope="module")
def reproduced(tmp_path_factory, fewest_digits):
    """The folder of the command on two pretended GPUs, and what the processes that used one did."""
    folder = tmp_path_factory.mktemp("reproduced")
    (folder / "plan.yaml").write_text(PLAN.format(shards=fewest_digits))
    (folder / "counts").mkdir()
    words = ["eval", "reproduce", "table3", "--dataset", "mnist", "--device", "cuda"]
    environment = {
        "CUDA_VISIBLE_DEVICES": "4,GPU-8a",
        "PYTHONPATH": str(ROOT / "tests" / "device" / "pretended" / "every_process"),
        "PRETENDED_COUNTS": str(folder / "counts"),
    }
    words += ["--plan", str(folder / "plan.yaml"), "--runs", str(folder / "runs")]
    done = run_module(*words, env=environment)
    assert done.returncode == 0, done.stderr + "".join(log.read_text() for log in (folder / "runs").glob("*.log"))
    return folder, [json.loads(path.read_text()) for path in (folder / "counts").glob("*.json")]


def test_each_job_computes_on_a_gpu_of_its_own(reproduced):
    folder, processes = reproduced
    assert sorted(process["gpus"] for process in processes) == ["4", "GPU-8a"]
    assert {process["words"][-1] for process in processes} == set(map(str, (folder / "runs" / "jobs").glob("*.json")))


def test_a_job_has_the_weights_and_the_answers_of_the_cpu(reproduced, tmp_path):
    folder, _ = reproduced
    ours, expected = folder / "runs" / "ours-seed0", tmp_path / "ours-seed0"
    (file,) = (folder / "runs" / "jobs").glob("ours-seed0@*.json")
    job = Work.load(file)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as jobs have: sums of several threads differ in their last bits
    try:
        Worker(replace(job, run=str(expected), device="cpu", pictures=())).run()
    finally:
        torch.set_num_threads(threads)
    found, right = weights(ours), weights(expected)
    assert all(torch.equal(found[name], right[name]) for name in right)
    found, right = (numbers(json.loads((run / "reproduction.json").read_text())["results"]) for run in (ours, expected))
    assert len(right) > 5
    assert found == pytest.approx(right, rel=1e-3, abs=1e-6, nan_ok=True)
