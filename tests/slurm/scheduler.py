"""A real Slurm scheduler with two nodes on this machine, without systemd, in a folder of its own."""

import contextlib
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
from support.running import ROOT

NODES = ("n1", "n2")
_CONF = """
ClusterName=lab
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/sock
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
ReturnToService=2
SlurmdTimeout=15
KillWait=30
JobRequeue=1
MinJobAge=900
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SchedulerParameters=batch_sched_delay=0,sched_interval=3,requeue_delay=1
GresTypes=gpu
StateSaveLocation={folder}/ctld
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/ctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/log/ctld.log
SlurmdLogFile={folder}/log/%n.log
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={port1} CPUs=32 RealMemory=400000 Gres=gpu:4
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.2 Port={port2} CPUs=32 RealMemory=400000 Gres=gpu:4
PartitionName=gpu Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=20
PartitionName=high Nodes=n1,n2 MaxTime=INFINITE State=UP PriorityTier=10
"""


def wait_for(holds: Callable[[], Any], what: str, seconds: float = 120) -> Any:
    """Polls until `holds` returns something true, and returns that."""
    end = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < end, f"after {seconds:g} s: {what}"
        time.sleep(0.25)
    return found


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


class Scheduler:
    """Starts munged, slurmctld and two slurmd, which claim 32 cores each and 4 GPUs that are empty files.

    `stop` ends them and all that they started.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("munge", "ctld", "log", *NODES):
            (folder / name).mkdir(parents=True)
        port, port1, port2 = _free_ports(3)
        host = socket.gethostname().split(".")[0]
        (folder / "slurm.conf").write_text(
            _CONF.format(folder=folder, host=host, port=port, port1=port1, port2=port2).lstrip()
        )
        for number in range(4):
            (folder / f"gpu{number}").touch()
        (folder / "gres.conf").write_text(f"NodeName=n[1-2] Name=gpu File={folder}/gpu[0-3]\n")
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "SBATCH_", "PYTEST"))}
        self.env["SLURM_CONF"] = str(folder / "slurm.conf")

    def start(self) -> None:
        """Returns when both nodes wait for jobs."""
        munge = self.folder / "munge"
        (munge / "key").write_bytes(os.urandom(1024))
        (munge / "key").chmod(0o400)
        files = {"key-file": "key", "socket": "sock", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        self._run("munged", "--force", *(f"--{option}={munge / name}" for option, name in files.items()))
        self._run("slurmctld", "-c")
        for node in NODES:
            self.start_node(node)
        self.wait_until_idle()

    def wait_until_idle(self) -> None:
        """Waits until both nodes are up and idle, without processes of earlier jobs."""

        def idle() -> bool:
            states = self.command("sinfo", "--Node", "--noheader", "--partition=gpu", "--format=%T").split()
            return states == ["idle"] * len(NODES) and not self._steps()

        wait_for(idle, "both nodes are idle", 60)

    def start_node(self, node: str) -> None:
        """Starts the daemon of a node."""
        self._run("slurmd", "-N", node)

    def _run(self, *words: str) -> None:
        program = shutil.which(words[0], path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
        assert program, f"{words[0]} is not installed; run make test-slurm, or apt-get install slurm-wlm munge"
        subprocess.run([program, *words[1:]], env=self.env, check=True, timeout=60, stdin=subprocess.DEVNULL)

    def _daemons(self) -> list[psutil.Process]:
        found = []
        for path in (*self.folder.glob("*.pid"), self.folder / "munge" / "pid"):
            text = path.read_text().strip() if path.exists() else ""
            if text and psutil.pid_exists(int(text)):
                found.append(psutil.Process(int(text)))
        return found

    def _steps(self, *nodes: str) -> list[psutil.Process]:
        """The slurmstepd processes of these nodes and all below them; they outlive their slurmd."""
        logs = {str(self.folder / "log" / f"{node}.log") for node in nodes or NODES}
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                if process.name().startswith("slurmstepd") and logs & {file.path for file in process.open_files()}:
                    found += [process, *process.children(recursive=True)]
        return found

    def stop(self) -> None:
        """Ends all daemons and jobs by their process ids."""
        _end([*self._daemons(), *self._steps()])

    def kill_node(self, node: str) -> None:
        """Ends a node as a loss of power would: its daemon and its jobs' processes are killed at once."""
        _end([psutil.Process(int((self.folder / f"{node}.pid").read_text())), *self._steps(node)])

    def trainers(self) -> list[psutil.Process]:
        """The processes of running steps that train."""
        return [p for p in self._steps() if "trainer" in p.cmdline() and "torch.distributed.run" not in p.cmdline()]

    def command(self, *words: str, env: dict[str, str] | None = None) -> str:
        """The output of a command of Slurm."""
        done = subprocess.run(
            words, env={**self.env, **(env or {})}, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, f"{words}: {done.stderr}"
        return done.stdout.strip()

    def facts(self, job: str) -> dict[str, str]:
        """The fields of `scontrol show job` for a job or a task of an array."""
        text = self.command("scontrol", "--oneliner", "show", "job", job)
        return dict(re.findall(r"(\S+?)=(\S*)", text))

    def state(self, job: str) -> str:
        """RUNNING, PENDING, COMPLETED, ..."""
        return self.facts(job)["JobState"]

    def start_now(self, job: str) -> None:
        """Starts a requeued job without the two minutes that Slurm waits for its nodes to be cleaned up."""
        time.sleep(5)  # at once, its new credential would be revoked with the old one
        self.command("scontrol", "update", f"JobId={job}", "StartTime=now")

    def wait_until(self, job: str, *states: str, seconds: float = 120) -> str:
        """Waits for one of the states and returns it."""
        return wait_for(lambda: (s := self.state(job)) in states and s, f"job {job} is {' or '.join(states)}", seconds)


def _end(processes: list[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    wait_for(lambda: not any(_runs(process) for process in processes), "killed processes end", 30)


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
