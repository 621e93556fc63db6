"""Hosts that are namespaces of this machine: own network, processes, /tmp and home, joined by a bridge, reached by ssh.

All of a host dies with its first process, and a host's first process dies with the one that started it, so that nothing
outlives the tests, whichever way they end. The bridge lies in a namespace of its own: the real network is not touched.
"""

import os
import pwd
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

NETWORK = "10.213.77"
PROGRAMS = ("/usr/sbin/sshd", "ssh-keygen", "rsync", "ip", "unshare", "nsenter", "setpriv")


def missing() -> str | None:
    """Why hosts cannot be made on this machine, in one line; None where they can."""
    if os.geteuid() != 0:
        return "hosts in network namespaces need root"
    absent = [program for program in PROGRAMS if shutil.which(program) is None]
    return f"not installed: {', '.join(absent)} (Debian: openssh-server, rsync, iproute2)" if absent else None


def wait_until(condition: Callable[[], bool], *, seconds: float, what: str) -> None:
    """Returns once the condition holds. Raises TimeoutError, saying what was waited for."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"not within {seconds:.0f} s: {what}")
        time.sleep(0.5)


def first_process(*words: str) -> subprocess.Popen[str]:
    """Starts the first process of new namespaces; it gets SIGKILL when this process ends, in whichever way."""
    return subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "unshare", *words], stdin=subprocess.PIPE, text=True)


@dataclass
class Host:
    """One machine with sshd."""

    name: str
    address: str
    process: subprocess.Popen[str]
    """unshare, whose only child is the first process inside."""

    @property
    def inside(self) -> int:
        """The first process inside, by its number outside; 0 where there is none."""
        try:
            children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        except OSError:
            return 0
        return int(children[0]) if children else 0

    def run(self, *words: str, timeout: float = 60) -> str:
        """Output of a command on the host, as root. Raises CalledProcessError."""
        enter = ["nsenter", "--target", str(self.inside), "--all", "--wdns=/", *words]
        return subprocess.run(enter, check=True, capture_output=True, text=True, timeout=timeout).stdout

    def commands(self) -> list[str]:
        """The command lines that run on the host."""
        return self.run("ps", "-eo", "args").splitlines()

    def lose(self) -> None:
        """Ends the host as a power cut would: all processes inside are killed at once."""
        self.process.kill()
        self.process.wait()


class Network:
    """A desk, where commands are typed, and hosts, all on one bridge. A context manager that ends them all."""

    def __init__(self, folder: Path, shared: Path, names: tuple[str, ...]) -> None:
        self.key = folder / "keys" / "login"
        self.key.parent.mkdir()
        for name in ("login", "host"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.key.with_name(name)], check=True)
        self.folder, self.shared, self.names = folder, shared, names
        self.hosts: dict[str, Host] = {}

    def __enter__(self) -> "Network":
        self._desk = first_process("--net", "sleep", "infinity")
        try:
            real = os.readlink("/proc/self/ns/net")
            wait_until(lambda: self._namespace() not in (real, ""), seconds=10, what="the desk's network")
            for words in (("add", "bridge", "type", "bridge"), ("set", "bridge", "up"), ("set", "lo", "up")):
                self.at_desk("ip", "link", *words)
            self.at_desk("ip", "address", "add", f"{NETWORK}.1/24", "dev", "bridge")
            for number, name in enumerate(self.names, 10):
                self.hosts[name] = self._start(name, number)
            for host in self.hosts.values():
                wait_until(lambda host=host: self._answers(host), seconds=60, what=f"ssh of {host.name}")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in (*(host.process for host in self.hosts.values()), self._desk):
            process.kill()
            process.wait()

    def _namespace(self) -> str:
        try:
            return os.readlink(f"/proc/{self._desk.pid}/ns/net")
        except OSError:
            return ""

    def _start(self, name: str, number: int) -> Host:
        script = Path(__file__).with_name("cluster_host.sh")
        home, packages = pwd.getpwuid(0).pw_dir, sysconfig.get_path("purelib")
        python = str(Path(sys.executable).resolve())
        places = (home, str(self.shared), packages, python, str(self.key.parent))
        words = ("bash", str(script), name, f"{NETWORK}.{number}/24", f"{NETWORK}.1", *places)
        kinds = ("--net", "--uts", "--ipc", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
        host = Host(name, f"{NETWORK}.{number}", first_process(*kinds, *words))
        wait_until(lambda: host.inside != 0, seconds=10, what=f"the first process of {name}")
        cable = ("ip", "link", "add", f"to-{name}", "type", "veth", "peer", "name", "eth0", "netns", str(host.inside))
        self.at_desk(*cable)
        self.at_desk("ip", "link", "set", f"to-{name}", "master", "bridge", "up")
        assert host.process.stdin is not None
        host.process.stdin.write("in\n")
        host.process.stdin.flush()
        return host

    def _answers(self, host: Host) -> bool:
        options = ("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "ConnectTimeout=2")
        words = ("ssh", "-q", "-i", str(self.key), *options, f"root@{host.address}", "true")
        return subprocess.run(self._enter(*words), capture_output=True, check=False).returncode == 0

    def _enter(self, *words: str) -> list[str]:
        return ["nsenter", "--target", str(self._desk.pid), "--net", *words]

    def at_desk(
        self, *words: str, env: dict[str, str] | None = None, cwd: Path | None = None, timeout: float = 60
    ) -> str:
        """Output of a command typed at the desk. Raises CalledProcessError, whose output is printed."""
        done = subprocess.run(
            self._enter(*words),
            env={**os.environ, **(env or {})},
            cwd=cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=timeout,
            check=False,
        )
        if done.returncode:
            print(done.stdout)
        done.check_returncode()
        return done.stdout

    @contextmanager
    def started_at_desk(
        self, *words: str, env: dict[str, str], cwd: Path, output: BinaryIO
    ) -> Iterator[subprocess.Popen[bytes]]:
        """A command that runs at the desk within the context; its output goes to a file."""
        process = subprocess.Popen(
            self._enter(*words),
            env={**os.environ, **env},
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()
