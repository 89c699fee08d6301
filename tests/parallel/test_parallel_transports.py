"""MPI and Horovod carry the same numbers, and side by side is the same as one after the other."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
from launching import PROGRAMS, read_metrics, run, run_well

pytestmark = pytest.mark.parallel

SHORT_RUN = (
    *("--total-env-steps", "800", "--learning-starts", "200", "--train-period", "4", "--log-period", "400"),
    *("--evaluation-period", "0", "--final-evaluation-episodes", "2", "--seed", "6"),
)


def _weights(folder: Path, launcher: str, ranks: int, *arguments: str, says: tuple[str, ...] = ()) -> str:
    """Runs the short run, looks for some words in its start report and returns its learner's digest."""
    name = f"r{len(list(folder.glob('*/*')))}"
    outcome = run_well(launcher, ranks, *SHORT_RUN, *arguments, "--runs-dir", folder, "--name", name)
    for text in says:
        assert text in outcome.output
    newest = max(folder.glob(f"*/{name}/checkpoints/*/learner.safetensors"), key=lambda file: int(file.parent.name))
    return hashlib.sha256(newest.read_bytes()).hexdigest()


@pytest.mark.parametrize("ranks", [2, 3])
def test_all_transports_give_the_same_bits(tmp_path: Path, ranks: int) -> None:
    """Sums, rounds, graphs, broadcasts and gathered texts; and all ranks hold the same.

    Shared memory and TCP add up in the order of ranks, the others in an order of their own: from three ranks on they
    round differently.
    """
    before = set(Path("/dev/shm").glob("hvd_dqn-*"))
    run_well("mpirun", ranks, tmp_path, program=PROGRAMS / "transports.py")
    seen = {
        (transport, rank): dict(np.load(tmp_path / f"{transport}-rank{rank}.npz"))
        for transport in ("MPI", "Horovod", "TCP", "shared memory", "hosts", "fallback", "unconnected")
        for rank in range(ranks)
    }
    assert set(Path("/dev/shm").glob("hvd_dqn-*")) <= before
    for (transport, rank), values in seen.items():
        own_order = transport in ("shared memory", "TCP", "hosts") and ranks > 2
        reference = seen["shared memory" if own_order else "MPI", 0]
        for name, value in values.items():
            if name == "own_after_all":
                np.testing.assert_array_equal(value, seen["MPI", rank][name])
            else:
                np.testing.assert_array_equal(value, reference[name], err_msg=f"{name}, {transport}, rank {rank}")
            if name.startswith("broadcast"):
                assert np.array_equal(np.signbit(value), np.signbit(reference[name])), (name, transport)
    reference = seen["MPI", 0]
    for name in ("sum", "rounds", "graph", "sum_of_a_square"):
        np.testing.assert_allclose(seen["shared memory", 0][name], reference[name], rtol=1e-4, atol=0.5)
    total = sum(seen["MPI", rank]["own_after_all"].astype(np.float64) for rank in range(ranks))
    np.testing.assert_allclose(reference["sum"], total, rtol=1e-4, atol=1.0)
    np.testing.assert_allclose(reference["sum_of_doubles"], total[::2])
    np.testing.assert_array_equal(reference["broadcast_array"], reference["own_after_all"])
    _assert_memory(tmp_path, ranks)
    gathered, sent = json.loads(reference["json"].tobytes())
    assert [part["text"] for part in gathered] == ["ü" * rank for rank in range(ranks)]
    assert sent == [0, "x"]


def _assert_memory(folder: Path, ranks: int) -> None:
    """Looks at what each rank sees of a learner's memory after each has written its number into its part."""
    for name, parameters in (("common", 300_001), ("short", 1000), ("MPI", 300_001), ("crowded", 400_001)):
        for rank in range(ranks):
            held = dict(np.load(folder / f"memory-{name}-rank{rank}.npz"))
            assert held["state"].shape == (3, parameters)
            np.testing.assert_array_equal(held["begun"][0], np.arange(parameters))
            assert not held["begun"][1:].any()
            expected, parts = np.full(parameters, rank + 1.0), [[0, parameters]] * ranks
            if name == "common":
                parts = held["parts"].tolist()
                starts, stops = held["parts"].T.tolist()
                assert [0, *stops] == [*starts, parameters]
                expected = np.repeat(np.arange(1.0, ranks + 1), np.diff(parts).ravel())
                assert np.diff(parts).min() > parameters // ranks - 16_384 * ranks
            assert held["parts"].tolist() == parts
            np.testing.assert_array_equal(held["state"], np.tile(expected, (3, 1)), err_msg=name)


def test_a_run_ends_with_the_same_weights_over_any_transport(tmp_path: Path) -> None:
    """With any learner; and the start report names what was asked for.

    The first layer is so wide that TensorFlow cuts its sums into parts: narrower ones it adds up as compiled passes do.
    """
    carriers = {"mpi": "MPI", "horovod": "Horovod", "tcp": "TCP", "auto": "shared memory"}
    backends = {"numpy": tuple(carriers), "tensorflow": ("horovod", "tcp")}
    ends = {}
    for backend, transports in backends.items():
        seen = set()
        for transport in transports:
            arguments = ("--backend", backend, "--transport", transport, "--hidden-sizes", "400", "84")
            says = (f"gradients by {carriers[transport]}", f"updated by {backend}")
            seen.add(_weights(tmp_path, "mpirun", 2, *arguments, says=says))
        (ends[backend],) = seen
    assert ends["numpy"] != ends["tensorflow"], "they round differently: was one used twice?"


@pytest.mark.parametrize(
    "network",
    [
        pytest.param(("--backend", "numpy", "--hidden-sizes", "400", "400"), id="mlp"),
        pytest.param(("--backend", "mixed", "--hidden-sizes", "400", "400"), id="mlp mixed", marks=pytest.mark.slow),
        pytest.param(("--backend", "numpy", "--env", "image_envs:Dot-v0"), id="cnn"),
    ],
)
def test_ranks_that_update_a_part_each_end_with_the_weights_of_those_that_update_all(
    network: tuple[str, ...], tmp_path: Path
) -> None:
    """Of a network whose sums are long: in shared memory the ranks have parameters and moments in common."""
    settings = (*network, "--max-grad-norm", "1")
    before = set(Path("/dev/shm").glob("hvd_dqn-*"))
    own, common = (_weights(tmp_path, "mpirun", 2, *settings, "--transport", how) for how in ("mpi", "shared-memory"))
    assert own == common
    assert set(Path("/dev/shm").glob("hvd_dqn-*")) <= before


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core cannot be shared out")
@pytest.mark.parametrize("launcher", ["mpirun", "horovodrun --mpi", "horovodrun --gloo"])
def test_two_ranks_never_share_a_core(tmp_path: Path, launcher: str) -> None:
    run_well(launcher, 2, tmp_path, program=PROGRAMS / "placement.py")
    first, second = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2))
    assert not set(first["cores"]) & set(second["cores"])
    assert [len(rank["cores"]) for rank in (first, second)] == [int(rank["threads"]) for rank in (first, second)]


def test_mpi_is_refused_where_gloo_has_started_the_ranks(tmp_path: Path) -> None:
    outcome = run("horovodrun --gloo", 2, *SHORT_RUN, "--transport", "mpi", "--runs-dir", tmp_path)
    assert "Process 0 exit with status code 2." in outcome.output
    assert outcome.output.count("--transport mpi needs ranks that an MPI launcher has started") == 1
    assert "use --transport auto" in outcome.output
    assert "Traceback" not in outcome.output.split("Process 0 exit")[0]
    assert not list(tmp_path.iterdir())


def test_a_lagging_policy_is_the_same_with_and_without_a_core_for_it(tmp_path: Path) -> None:
    """One thread per rank runs inline, two run side by side."""
    settings = ("--policy-lag", "1", "--backend", "tensorflow", "--train-period", "2")
    inline = _weights(tmp_path, "python", 1, *settings, "--threads-per-rank", "1")
    beside = _weights(tmp_path, "python", 1, *settings, "--threads-per-rank", "2")
    assert inline == beside
    assert inline != _weights(tmp_path, "python", 1, *settings[2:], "--threads-per-rank", "1")


def test_a_lagging_policy_works_on_several_ranks(tmp_path: Path) -> None:
    first, again = (_weights(tmp_path, "mpirun", 2, "--policy-lag", "1") for _ in range(2))
    assert first == again


@pytest.mark.parametrize("transport", ["horovod", "mpi", "shared-memory"])
def test_every_rank_leaves_a_trace_and_horovod_its_timeline(tmp_path: Path, transport: str) -> None:
    """The timeline shows who carried the gradients: Horovod hears of none that others carry."""
    run_well("mpirun", 2, *SHORT_RUN, "--profile", "--transport", transport, "--runs-dir", tmp_path, "--name", "p")
    folder = tmp_path / "CartPole-v1" / "p" / "profile"
    for rank in range(2):
        events = json.loads((folder / f"rank-{rank:05d}.trace.json").read_text())["traceEvents"]
        phases = {event["name"] for event in events if event["ph"] == "X"}
        assert {"collect", "sample", "gradient", "allreduce", "apply"} <= phases
        assert {event["pid"] for event in events} == {rank}
        assert all(event["dur"] >= 0 for event in events if event["ph"] == "X")
    assert ("ALLREDUCE" in (folder / "horovod.timeline.json").read_text()) == (transport == "horovod")
    last = [line for line in read_metrics(folder.parent) if line["kind"] == "training"][-1]
    assert 0 < last["gradient_microseconds_min"] <= last["gradient_microseconds_max"] < 1e6
    assert 50 < last["resident_mebibytes"] < 5000
