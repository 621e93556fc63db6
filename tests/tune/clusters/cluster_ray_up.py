"""`ray up` with tune/clusters/local.yaml, run on a desk machine for hosts that are network namespaces."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml
from cluster_hosts import Network
from support.running import ROOT

PROJECT = "~/two-stage-sigma-vae"


@dataclass
class RayUp:
    """A cluster file that differs from the project's in what every user changes: addresses, user and key."""

    network: Network
    file: Path

    @classmethod
    def on(cls, network: Network) -> "RayUp":
        """The first host is the head, the others are workers."""
        head, *workers = [host.address for host in network.hosts.values()]
        cluster = yaml.safe_load((ROOT / "tune" / "clusters" / "local.yaml").read_text())
        cluster["cluster_name"] += f"-{os.getpid()}"
        cluster["provider"].update(head_ip=head, worker_ips=workers)
        cluster["auth"] = {"ssh_user": "root", "ssh_private_key": str(network.key)}
        file = network.folder / "cluster.yaml"
        file.write_text(yaml.safe_dump(cluster))
        return cls(network, file)

    @property
    def env(self) -> dict[str, str]:
        """The environment of commands at the desk: the project's Ray, and its own folder for records of clusters."""
        return {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "RAY_TMPDIR": str(self.network.folder / "ray"),
            "RAY_USAGE_STATS_ENABLED": "0",
        }

    def ray(self, command: str, *words: str, timeout: float = 300) -> str:
        """Output of `ray COMMAND FILE WORDS` at the desk, from the project's folder."""
        return self.network.at_desk("ray", command, str(self.file), *words, env=self.env, cwd=ROOT, timeout=timeout)

    @contextmanager
    def started(self, command: str, *words: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
        """`ray COMMAND FILE WORDS` at the desk, in the background; it is ended, if it still runs, with the context."""
        line = ("ray", command, str(self.file), *words)
        with (
            log.open("wb") as output,
            self.network.started_at_desk(*line, env=self.env, cwd=ROOT, output=output) as one,
        ):
            yield one

    def up(self) -> None:
        self.ray("up", "--yes", "--no-config-cache", timeout=600)

    def down(self) -> None:
        self.ray("down", "--yes")

    def with_raylet(self) -> set[str]:
        """Names of the hosts on which Ray runs."""
        names = set()
        for host in self.network.hosts.values():
            if host.inside and any("raylet/raylet" in command for command in host.commands()):
                names.add(host.name)
        return names

    def on_head(self, command: str, *, timeout: float = 300) -> str:
        """Output of a command on the head, in the project's folder, as `ray exec` would run it."""
        head = next(iter(self.network.hosts.values()))
        words = ("bash", "--login", "-i", "-c", f"source ~/.bashrc; cd {PROJECT} && {command}")
        try:
            return head.run(*words, timeout=timeout)
        except subprocess.CalledProcessError as error:
            print(error.stdout, error.stderr)
            raise
