"""The files for `ray up`, checked offline: by Ray's own schema, by bash, by Ray's own command line and by pip."""

import copy
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
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


@pytest.mark.parametrize("name", CLOUDS)
def test_all_processes_of_a_trial_of_the_celeba_sweep_fit_on_one_machine(name):
    sweep = yaml.safe_load((ROOT / "tune/configs/celeba.yaml").read_text())
    _, workers = node_types(name)
    for worker in workers:
        assert worker["resources"]["GPU"] >= sweep["workers"]
        assert worker["resources"]["CPU"] >= sweep["workers"] * sweep["cpus_per_worker"]


@pytest.mark.parametrize("name", CLOUDS)
def test_all_machines_start_from_one_image_that_does_not_change(name):
    head, workers = node_types(name)
    images = set()
    for node_type in (head, *workers):
        config = node_type["node_config"]
        images.add(config.get("ImageId") or config["disks"][0]["initializeParams"]["sourceImage"])
    (image,) = images
    assert "family" not in image
    assert "latest" not in image


@pytest.mark.parametrize("name", CLOUDS)
def test_the_file_says_what_it_costs_and_what_an_interruption_loses(name):
    head = (ROOT / "tune" / "clusters" / f"{name}.yaml").read_text().partition("cluster_name:")[0]
    assert "# Cost, " in head
    assert "# Spot: " in head


@pytest.mark.parametrize("name", CLUSTERS)
def test_the_dashboard_can_be_reached_from_the_head_alone(name):
    started = [command for command in read(name)["head_start_ray_commands"] if "ray start" in command]
    assert len(started) == 1
    assert "--dashboard-host=127.0.0.1" in started[0]


def test_machines_of_compute_engine_are_in_a_network_that_ray_does_not_open():
    head, workers = node_types("gcp")
    for node_type in (head, *workers):
        (interface,) = node_type["node_config"]["networkInterfaces"]
        assert "default" not in interface["subnetwork"]


def pinned() -> dict[str, str]:
    lines = (ROOT / "tune" / "clusters" / "constraints.txt").read_text().splitlines()
    pins = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pins}


def test_every_dependency_of_the_project_has_one_version_and_it_is_one_that_the_project_takes():
    project, pins = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"], pinned()
    needed = [Requirement(text) for text in project["dependencies"]]
    for requirement in needed:
        if requirement.marker is None or requirement.marker.evaluate({"sys_platform": "linux"}):
            assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), str(requirement)


@pytest.mark.parametrize("name", ["aws", "gcp", "local"])
def test_everything_that_pip_installs_on_a_machine_is_pinned(name):
    installs = [command for command in commands(read(name)) if "pip install" in command]
    assert installs
    for command in installs:
        words = command.split()
        at = words.index("--constraint")
        assert words[at + 1] == "~/two-stage-sigma-vae/tune/clusters/constraints.txt"
        named = [word for word in words[at + 2 :] if not word.startswith(("-", "~"))]
        assert {canonicalize_name(word) for word in named} <= set(pinned())


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
