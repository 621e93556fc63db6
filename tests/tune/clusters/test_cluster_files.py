"""The files for `ray up`, checked offline: by Ray's own schema, by bash, by Ray's own command line and by pip."""

import copy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.scripts.scripts import cli
from support.running import ROOT

CLUSTERS = ("aws", "gcp", "local", "slurm")
CLOUDS = ("aws", "gcp")


def read(name: str) -> dict:
    return yaml.safe_load((ROOT / "tune" / "clusters" / f"{name}.yaml").read_text())


def commands(cluster: dict) -> Iterator[str]:
    """Every shell command of a cluster file."""
    for key, value in cluster.items():
        if key.endswith("_commands"):
            yield from value


def node_types(name: str) -> tuple[dict, list[dict]]:
    """The head's node type, and the workers'."""
    cluster = read(name)
    types = dict(cluster["available_node_types"])
    head = types.pop(cluster["head_node_type"])
    return head, list(types.values())


@pytest.mark.parametrize("name", CLUSTERS)
def test_ray_accepts_the_file(name):
    validate_config(prepare_config(read(name)))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("initial_workers",), 2),
        (("idle_timeout_minutes",), "ten"),
        (("head_node_type",), "chief"),
        (("provider", "type"), 7),
        (("available_node_types", "worker", "spot"), True),
        (("available_node_types", "worker", "min_workers"), 9),
        (("available_node_types", "worker", "resources"), None),
        (("setup_commands",), ["true", 3]),
    ],
    ids=lambda part: ".".join(part) if isinstance(part, tuple) else repr(part),
)
@pytest.mark.parametrize("name", CLOUDS)
def test_ray_refuses_the_file_once_one_field_is_wrong(name, path, value):
    broken = copy.deepcopy(read(name))
    section = broken
    for key in path[:-1]:
        section = section[key]
    section[path[-1]] = value
    with pytest.raises((jsonschema.ValidationError, ValueError, NotImplementedError)):
        validate_config(prepare_config(broken))


def test_on_ec2_the_head_is_on_demand_and_the_workers_are_spot():
    head, workers = node_types("aws")
    assert "InstanceMarketOptions" not in head["node_config"]
    assert [worker["node_config"]["InstanceMarketOptions"] for worker in workers] == [{"MarketType": "spot"}]


def test_on_compute_engine_the_head_is_on_demand_and_the_workers_are_spot():
    head, workers = node_types("gcp")
    assert "scheduling" not in head["node_config"]
    assert [worker["node_config"]["scheduling"]["provisioningModel"] for worker in workers] == ["SPOT"]


@pytest.mark.parametrize("name", CLOUDS)
def test_the_number_of_workers_follows_the_load_and_the_head_runs_no_trials(name):
    cluster = prepare_config(read(name))
    head, workers = node_types(name)
    assert head["resources"]["CPU"] == 0
    assert all(worker["min_workers"] < worker["max_workers"] for worker in workers)
    assert cluster["idle_timeout_minutes"] > 0
    assert cluster["available_node_types"][cluster["head_node_type"]]["max_workers"] == 0
    assert any("--autoscaling-config" in command for command in cluster["head_start_ray_commands"])


@pytest.mark.parametrize("name", CLUSTERS)
def test_every_command_is_valid_shell_and_every_ray_start_has_options_that_ray_knows(name):
    started = 0
    for command in commands(read(name)):
        checked = subprocess.run(["bash", "-n", "-c", command], capture_output=True, text=True, check=False)
        assert checked.returncode == 0, f"{command}: {checked.stderr}"
        for part in command.split(";"):
            words = shlex.split(part)
            if words[:2] == ["ray", "start"]:
                cli.commands["start"].make_context("start", words[2:])
                started += 1
    assert started == 2


@pytest.mark.parametrize("name", ["aws", "gcp", "local"])
def test_the_mounts_suffice_to_install_the_project_as_the_setup_commands_do(tmp_path, name):
    cluster, home = read(name), tmp_path / "home"
    for remote, local in cluster["file_mounts"].items():
        place = home / remote.removeprefix("~/")
        place.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / local).is_dir():
            shutil.copytree(ROOT / local, place, ignore=shutil.ignore_patterns(*cluster["rsync_exclude"]))
        else:
            shutil.copy(ROOT / local, place)
    # Without dependencies: this environment has them.
    installs = [command for command in cluster["setup_commands"] if "pip install" in command]
    assert [Path(command.split()[-1]) for command in installs] == [Path("~/two-stage-sigma-vae")]
    target = tmp_path / "installed"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    where = str(home / "two-stage-sigma-vae")
    done = subprocess.run([*pip, "--target", str(target), where], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    listed = {path.name for path in target.iterdir()}
    assert {"data_shards", "trainer", "eval", "tune"} <= listed
    assert (target / "tune" / "clusters" / f"{name}.yaml").read_text() == (
        ROOT / f"tune/clusters/{name}.yaml"
    ).read_text()


@pytest.mark.parametrize("name", ["aws", "gcp", "local"])
def test_the_mounts_are_the_project_alone_without_environment_shards_or_runs(name):
    cluster, sent = read(name), 0
    for local in cluster["file_mounts"].values():
        for file in [ROOT / local, *(ROOT / local).rglob("*")]:
            if file.is_file() and not set(cluster["rsync_exclude"]) & set(file.parts):
                sent += file.stat().st_size
    assert sent < 10 * 2**20
