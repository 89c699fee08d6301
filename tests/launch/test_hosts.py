"""The job over several hosts by ssh: complete, discreet, and cleanly over when something is lost."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hosts import Hosts, Link, running_hosts, wait_until
from launching import ROOT, read_metrics
from short_runs import SHORT_RUN, weights

pytestmark = pytest.mark.launch

HOSTS_SCRIPT, ELASTIC_SCRIPT = ROOT / "launch" / "hosts.sh", ROOT / "launch" / "elastic.sh"
ONE_LEARNER = (*SHORT_RUN, "--learner", "tensorflow")
"""Under Gloo there is no other."""
CONTROLLERS = ("gloo", "mpi")
ENDLESS = (
    *("--env", "paced_envs:PacedCartPole-v0", "--total-env-steps", "100000000", "--learning-starts", "200"),
    *("--train-period", "16", "--evaluation-period", "0", "--log-period", "800"),
)
SECONDS_TO_END = {"rank": 20.0, "host": 30.0, "link": 60.0}
"""How long a job may take to be over on all hosts after the loss; the ranks' watchdog waits 25 s."""


@dataclass
class HostsJob:
    """A job that launch/hosts.sh or launch/elastic.sh has started from the first node."""

    hosts: Hosts
    folder: Path
    process: subprocess.Popen[bytes]
    log: Path
    seen: set[str] = field(default_factory=set)
    """Every command line of every process on any host, while `sampling`."""

    @property
    def output(self) -> str:
        """Returns what it has printed so far."""
        return self.log.read_text(errors="replace")

    def wait_for(self, text: str, seconds: float = 120.0) -> None:
        """Returns as soon as something has been printed."""
        wait_until(lambda: text in self.output or self.process.poll() is not None, seconds, f"it printed {text!r}")
        assert text in self.output, self.output

    def finish(self, seconds: float = 150.0) -> int:
        """Returns the exit code, once nothing of the job is left on any host."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the job still runs after {seconds:g} s:\n{self.output}") from None
        with contextlib.suppress(AssertionError):
            wait_until(lambda: not self.left(), 5.0, "nothing is left")
        assert not self.left(), self.output
        return code

    def end_within(self, seconds: float) -> None:
        """Returns once launcher and ranks are gone from all hosts; fails if they are not in time."""
        deadline = time.monotonic() + seconds
        while self.process.poll() is None or self.left():
            left = "\n".join(self.left())
            assert time.monotonic() < deadline, f"after {seconds:g} s there is still:\n{left}\n{self.output}"
            time.sleep(0.1)

    def left(self) -> list[str]:
        """Returns the command lines of launchers, daemons and ranks on all hosts."""
        names = ("train.py", "horovodrun", "mpirun", "orted", "horovod.runner")
        lines = [line for host in (self.hosts.head, *self.hosts.nodes) for line in host.processes().values()]
        return [line for line in lines if any(name in line for name in names)]

    @contextlib.contextmanager
    def sampling(self) -> Iterator[None]:
        """Gathers command lines for the time of a with-block."""
        over = threading.Event()

        def gather() -> None:
            while not over.wait(0.01):
                for entry in Path("/proc").iterdir():
                    if entry.name.isdigit():
                        with contextlib.suppress(OSError):
                            line = (entry / "cmdline").read_text(errors="replace")
                            self.seen.add(line.replace("\0", " "))

        thread = threading.Thread(target=gather)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


@contextlib.contextmanager
def started(
    hosts: Hosts,
    controller: str,
    *run: str,
    folder: Path,
    options: tuple[str, ...] = (),
    environ: Mapping[str, str] | None = None,
    ranks: tuple[int, ...] = (),
) -> Iterator[HostsJob]:
    """Starts ranks on each node, by default one, for the time of a with-block; nothing of it outlives the block.

    Args:
      hosts: the hosts.
      controller: gloo or mpi, default to name neither, elastic for launch/elastic.sh.
      *run: train.py's options.
      folder: of the runs and the log.
      options: of the launch script.
      environ: variables to add to the script's environment.
      ranks: the number of ranks on each node.
    """
    counts = ranks or (1,) * len(hosts.nodes)
    places = [f"{node.name}:{count}" for node, count in zip(hosts.nodes, counts, strict=True)]
    where = ("--name", "run") if "--runs-dir" in run else ("--runs-dir", str(folder), "--name", "run")
    chosen = () if controller == "default" else (f"--{controller}",)
    start: tuple[str, ...] = (str(HOSTS_SCRIPT), *chosen, "-H", ",".join(places))
    if controller == "elastic":
        listed = folder / "hosts.txt"
        listed.write_text("\n".join(places))
        start = (str(ELASTIC_SCRIPT), "--hosts", str(listed), "-np", str(len(places)), "--network-interfaces", "eth0")
    command = (*start, *options, "--", *run, *where)
    log = folder / "log"
    own = os.environ | {"PYTHONPATH": str(Path(__file__).parent)} | dict(environ or {})
    with log.open("wb") as file:
        process = subprocess.Popen(
            hosts.nodes[0].command(*command), env=own, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT
        )
    job = HostsJob(hosts, folder, process, log)
    try:
        yield job
    finally:
        for host in (hosts.head, *hosts.nodes):
            for pid, line in host.processes().items():
                if line in job.left():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
        process.kill()
        process.wait(10.0)


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    with running_hosts(tmp_path_factory.mktemp("hosts"), nodes=2) as running:
        yield running


@pytest.fixture(scope="module")
def digests() -> dict[str, str]:
    """Returns the weights that runs on two hosts have ended in so far."""
    return {}


def check_complete(job: HostsJob, controller: str, ranks: int = 2) -> Path:
    """Checks that rank 0 has told the whole story once, and returns the run's directory."""
    assert job.finish() == 0, job.output
    assert f"{ranks}, controller {'Gloo' if controller == 'gloo' else 'MPI'}" in job.output
    for line in ("hvd_dqn on CartPole-v1", "evaluation at env step 1,008", "Greedy evaluation of the best checkpoint"):
        assert job.output.count(line) == 1, line
    run_directory = job.folder / "CartPole-v1" / "run"
    assert [record["env_steps"] for record in read_metrics(run_directory, "training")] == [208, 400, 608, 800, 1008]
    return run_directory


@pytest.mark.parametrize(
    "controller", ["default", *(pytest.param(name, marks=pytest.mark.slow) for name in CONTROLLERS)]
)
def test_a_run_over_two_hosts_is_complete_and_does_not_depend_on_the_controller(
    hosts: Hosts, controller: str, digests: dict[str, str], tmp_path: Path
) -> None:
    """The ranks compare their weights at every log line; two ranks end in the same bits under either controller."""
    with started(hosts, controller, *ONE_LEARNER, folder=tmp_path, options=("--interface", "eth0")) as job:
        digests[controller] = weights(check_complete(job, controller))
    why = {"default": "--mpi: the default for CPUs"}.get(controller, f"--{controller}: as --{controller} asks")
    assert f"launch/hosts.sh: the ranks use {why}\n" in job.output
    assert len(set(digests.values())) == 1


@pytest.mark.slow
def test_ranks_that_ask_for_gpus_use_gloo(hosts: Hosts, tmp_path: Path) -> None:
    """There is no GPU: the job is refused on both hosts, after the controller has been chosen."""
    with started(hosts, "default", *SHORT_RUN, "--device", "visible-gpu", folder=tmp_path) as job:
        assert job.finish() != 0
    assert "launch/hosts.sh: the ranks use --gloo: the default for GPUs" in job.output
    assert "GPU" in job.output.replace("default for GPUs", "")


@pytest.mark.slow
@pytest.mark.parametrize("controller", CONTROLLERS)
@pytest.mark.parametrize("flag", ["--runs-dir", "--checkpoint-path"])
def test_a_folder_that_the_hosts_do_not_share_is_refused_at_the_start(
    hosts: Hosts, controller: str, flag: str, tmp_path: Path
) -> None:
    """Each host has a /run of its own."""
    place = Path("/run") / tmp_path.name
    value = str(place) if flag == "--runs-dir" else place.as_uri()
    options = (*SHORT_RUN, flag, value)
    with started(hosts, controller, *options, folder=tmp_path) as job:
        code = job.finish()
    assert code == (2 if controller == "mpi" else 1)  # Gloo's launcher makes a 1 of every code
    assert f"rank 1: node2 does not see the folder {place}" in job.output
    assert f"of rank 0 on node1: give a {flag} on a file system that all hosts share" in job.output
    assert "Traceback" not in job.output.split("Process 0 exit")[0]
    assert "evaluation at env step" not in job.output
    if flag == "--runs-dir":
        assert hosts.nodes[0].run("find", str(place), "-type", "f") == ""


@pytest.mark.slow
def test_a_run_over_three_hosts_of_which_one_has_two_ranks(tmp_path: Path) -> None:
    (tmp_path / "hosts").mkdir()
    with (
        running_hosts(tmp_path / "hosts", nodes=3) as three,
        started(three, "gloo", *SHORT_RUN, folder=tmp_path, ranks=(1, 2, 1)) as job,
    ):
        check_complete(job, "gloo", ranks=4)


@pytest.mark.slow
@pytest.mark.parametrize(("controller", "delay"), [("mpi", 1.0), ("gloo", 1.0), ("mpi", 10.0)])
def test_a_slow_network_changes_nothing_but_the_time(
    controller: str, delay: float, digests: dict[str, str], tmp_path: Path
) -> None:
    """Each message takes 1 or 10 ms, at 100 Mbit/s."""
    (tmp_path / "hosts").mkdir()
    with (
        running_hosts(tmp_path / "hosts", 2, Link(delay, 100.0)) as slow,
        started(slow, controller, *ONE_LEARNER, folder=tmp_path) as job,
    ):
        digests[f"{controller} {delay}"] = weights(check_complete(job, controller))
    assert len(set(digests.values())) == 1


@pytest.mark.slow
@pytest.mark.parametrize("controller", CONTROLLERS)
@pytest.mark.parametrize("lost", SECONDS_TO_END)
def test_a_loss_ends_the_job_in_time_and_leaves_nobody_on_any_host(
    hosts: Hosts, controller: str, lost: str, tmp_path: Path
) -> None:
    """A rank is killed, a host loses its power, a cable is cut without a word to either side."""
    victim = hosts.nodes[1]
    with started(hosts, controller, *ENDLESS, folder=tmp_path) as job:
        job.wait_for("env steps/s")
        hit = time.monotonic()
        if lost == "rank":
            (rank,) = victim.ranks()
            os.kill(rank, signal.SIGKILL)
        elif lost == "host":
            victim.kill()
        else:
            hosts.cut(victim)
        try:
            job.end_within(SECONDS_TO_END[lost])
            print(f"{controller}, lost {lost}: over on all hosts after {time.monotonic() - hit:.1f} s")
            assert job.process.returncode != 0
        finally:
            if lost == "host":
                hosts.start_node(victim)
            elif lost == "link":
                hosts.mend(victim)


@pytest.mark.slow
@pytest.mark.parametrize("controller", [*CONTROLLERS, "elastic"])
def test_a_secret_in_the_environment_is_on_no_command_line_and_in_no_log(
    hosts: Hosts, controller: str, tmp_path: Path
) -> None:
    """What is named does reach the ranks; under Gloo on ssh's command line, which shows that the test can see it."""
    environ = {"HUSH": "a-secret-in-the-environment", "TOLD": "a-word-for-the-ranks"}
    with started(hosts, controller, *ENDLESS, folder=tmp_path, options=("-x", "TOLD"), environ=environ) as job:
        with job.sampling():
            job.wait_for("env steps/s")
            for node in hosts.nodes:
                (rank,) = node.ranks()
                own = Path(f"/proc/{rank}/environ").read_bytes()
                assert b"TOLD=a-word-for-the-ranks" in own
                assert b"a-secret-in-the-environment" not in own
        assert not [line for line in job.seen if "a-secret-in-the-environment" in line]
        assert any("TOLD=a-word-for-the-ranks" in line for line in job.seen) == (controller != "mpi")
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert not [file for file in files if b"a-secret-in-the-environment" in file.read_bytes()]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "name the hosts: -H node1:4,node2:4"),
        (("-H", "node1"), "write each host as NAME:RANKS"),
        (("-H", "node1:0"), "write each host as NAME:RANKS"),
        (("-H", "node1:1", "-x", "A=b"), "give a variable's name"),
        (("-H",), "-H needs a value"),
    ],
)
def test_wrong_arguments_are_refused_with_the_remedy(arguments: tuple[str, ...], words: str) -> None:
    done = subprocess.run([HOSTS_SCRIPT, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert words in done.stderr
