"""A real Slurm on hosts of namespaces: slurmctld and munged on the head, one slurmd on each node."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hosts import Host, Hosts, require_root_and, running_hosts, wait_until

PACKAGES = ("slurmd", "slurmctld", "slurm-client", "slurm-wlm-basic-plugins", "munge", "libpmix-dev")
_PROGRAMS = ("/usr/sbin/munged", "/usr/sbin/slurmctld", "/usr/sbin/slurmd", "sbatch", "srun", "scontrol")
_PLUGINS = Path("/usr/lib/x86_64-linux-gnu/slurm-wlm")
_OWN_VARIABLES = ("SLURM_", "SBATCH_", "HOROVOD_", "OMPI_", "PMIX_", "PMI_")

_CONFIGURATION = """
ClusterName=tests
SlurmctldHost=head({head})
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
TmpFS={folder}/tmp.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
SwitchType=switch/none
MpiDefault=none
PluginDir={plugins}
GresTypes=gpu
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
ReturnToService=2
SchedulerParameters=sched_interval=2,bf_interval=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
KillWait=20
MinJobAge=3600
SlurmdTimeout=10
{nodes}
PartitionName=low Nodes=ALL Default=YES MaxTime=01:00:00 State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=20
PartitionName=high Nodes=ALL MaxTime=01:00:00 State=UP PriorityTier=10 PreemptMode=OFF
"""


@dataclass(frozen=True)
class Job:
    """A submitted job."""

    number: str
    output: Path

    def text(self) -> str:
        """Returns what the job has printed so far."""
        return self.output.read_text(errors="replace") if self.output.exists() else ""


class Slurm:
    """A cluster; all its commands run on the head."""

    def __init__(self, hosts: Hosts, pmix: bool) -> None:
        """Writes the configuration into the hosts' private folder.

        Args:
          hosts: head and nodes, which run.
          pmix: whether Slurm has its plugin for PMIx.
        """
        require_root_and(_PROGRAMS, PACKAGES)
        self.hosts = hosts
        self._folder = hosts.folder
        for name in ("state", *(f"tmp.{node.name}" for node in hosts.nodes)):
            (self._folder / name).mkdir()
        key = self._folder / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        nodes = "\n".join(
            f"NodeName={node.name} NodeAddr={node.address} CPUs=2 RealMemory=4000 Gres=gpu:1 State=UNKNOWN"
            for node in hosts.nodes
        )
        plugins = _PLUGINS if pmix else self._plugins_without_pmix()
        text = _CONFIGURATION.format(head=hosts.head.address, folder=self._folder, nodes=nodes, plugins=plugins)
        (self._folder / "gres.conf").write_text("Name=gpu File=/dev/null\n")  # something to hand out, no GPU
        (self._folder / "slurm.conf").write_text(text)
        # slurmd loads a cgroup plugin even where none is asked for; version 1 needs nothing mounted.
        (self._folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
        bin_folder = str(Path(sys.executable).parent)
        own = {name: value for name, value in os.environ.items() if not name.startswith(_OWN_VARIABLES)}
        self.environ = own | {
            "SLURM_CONF": str(self._folder / "slurm.conf"),
            "PATH": f"{bin_folder}:{os.environ['PATH']}",
        }

    def _plugins_without_pmix(self) -> Path:
        folder = self._folder / "plugins"
        folder.mkdir()
        for plugin in _PLUGINS.glob("*.so"):
            if not plugin.name.startswith("mpi_pmix"):
                (folder / plugin.name).symlink_to(plugin)
        return folder

    def start(self) -> None:
        """Starts the daemons and waits until all nodes are idle."""
        files = ("key-file=munge.key", "socket=munge.socket", "pid-file=munged.pid", "log-file=munged.log")
        places = [f"--{option}={self._folder / file}" for option, file in (pair.split("=") for pair in files)]
        self.run("/usr/sbin/munged", "--force", f"--seed-file={self._folder / 'munged.seed'}", *places)
        self.run("/usr/sbin/slurmctld")
        for node in self.hosts.nodes:
            self.start_daemon(node)
        names = {node.name for node in self.hosts.nodes}
        wait_until(lambda: self.nodes_in("idle") == names, 30.0, "all nodes are idle")

    def start_daemon(self, node: Host) -> None:
        """Starts a node's slurmd."""
        self.run("/usr/sbin/slurmd", "-N", node.name, on=node)

    def nodes_in(self, state: str) -> set[str]:
        """Returns the names of the nodes in a state."""
        return set(self.run("sinfo", "--noheader", "--Node", "--states", state, "--format", "%N").split())

    def run(self, *command: str | Path, on: Host | None = None, seconds: float = 60.0) -> str:
        """Runs a command that has to succeed, and returns what it prints."""
        done = self.attempt(*command, on=on, seconds=seconds)
        assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stderr}{done.stdout}"
        return done.stdout

    def attempt(
        self, *command: str | Path, on: Host | None = None, seconds: float = 60.0
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command on the head, or on a node."""
        line = (on or self.hosts.head).command(*command)
        return subprocess.run(
            line,
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
            stdin=subprocess.DEVNULL,
        )

    def submitted(self, answer: str) -> Job:
        """Returns the job that launch/slurm/submit says it has submitted."""
        number, output = re.search(r"submitted job (\d+)", answer), re.search(r"^  output (.*)$", answer, re.MULTILINE)
        assert number is not None, answer
        assert output is not None, answer
        return Job(number[1], Path(output[1]))

    def shown(self, job: str) -> dict[str, str]:
        """Returns what scontrol shows of a job."""
        words = self.run("scontrol", "--oneliner", "show", "job", job).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def state(self, job: Job) -> str:
        """Returns a job's state."""
        return self.shown(job.number)["JobState"]

    def wait_for(self, job: Job, *states: str, seconds: float = 200.0) -> str:
        """Returns as soon as a job is in one of some states, and which."""
        deadline = time.monotonic() + seconds
        while (state := self.state(job)) not in states:
            assert time.monotonic() < deadline, f"job {job.number} is {state}, not {states}:\n{job.text()}"
            time.sleep(0.3)
        return state

    def wait_for_text(self, job: Job, text: str, seconds: float = 120.0) -> None:
        """Returns as soon as a job has printed something."""
        wait_until(lambda: text in job.text() or self.over(job), seconds, f"job {job.number} printed {text!r}")
        assert text in job.text(), f"job {job.number} ended without {text!r}:\n{job.text()}"

    def over(self, job: Job) -> bool:
        """Returns whether a job is over, one way or another."""
        return self.state(job) in ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")


@contextlib.contextmanager
def running_slurm(folder: Path, nodes: int = 2, pmix: bool = True) -> Iterator[Slurm]:
    """Gives a cluster for the time of a with-block."""
    with running_hosts(folder, nodes) as hosts:
        slurm = Slurm(hosts, pmix)
        slurm.start()
        yield slurm
