"""CelebA's plan run on images in CelebA's form with thin networks: no result, but every step of the way."""

import json

import yaml
from support.celeba_tree import write_celeba
from support.running import ROOT, run_module


def test_the_whole_way_on_a_celeba_shaped_tree(tmp_path):
    plan = yaml.safe_load((ROOT / "eval/paper/plans/celeba.yaml").read_text())
    thin = {
        "device": "cpu",
        "engine.precision": "float32",
        "engine.compile": False,
        "data.workers": 0,
        "data.global_batch": 40,
        "data.valid_images": 30,
        "model.latent_dim": 8,
        "model.encoder_channels": [4, 8, 8, 8],
        "model.decoder_channels": [8, 8, 8, 4],
        "log.to": [],
    }
    plan |= {
        "shards": str(tmp_path / "shards"),
        "fields": plan["fields"] | thin,
        "budget": {"stage1_epochs": 1, "stage2_epochs": 1},
        "seeds": [0],
        "methods": {"ours": plan["methods"]["ours"]},
        "measure": plan["measure"] | {"mixture": {"components": 3}, "likelihood_images": 10, "importance_samples": 2},
    }
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan))
    words = ["eval", "reproduce", "table3", "--dataset", "celeba", "--plan", str(tmp_path / "plan.yaml")]
    words += ["--runs", str(tmp_path / "runs")]
    refused = run_module(*words)
    assert refused.returncode == 2
    assert refused.stderr == (
        "error: --source: CelebA cannot be fetched; give the folder with its images and partition file\n"
    )
    done = run_module(*words, "--source", str(write_celeba(tmp_path / "source")))
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "runs/ours-seed0/reproduction.json").read_text())
    assert record["training"]["images"] == 2 * 240
    (final,) = [result for key, result in record["results"].items() if key.endswith("final")]
    assert final["protocol"]["image_shape"] == [3, 64, 64]
    assert final["protocol"]["pixels"]["crop"] == 140
    assert "ours, per pixel" in (tmp_path / "runs/pages/table3.md").read_text()
