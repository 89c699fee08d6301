"""The number of ranks changes nothing about what is learned from a global batch."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from launching import LEARNERS, PROGRAMS
from persistent_ranks import PersistentRanks

pytestmark = pytest.mark.parallel

Saved = list[dict[str, np.ndarray]]
"""What each rank has saved."""
Stream = Callable[[str, int], Saved]


@pytest.fixture(scope="module")
def stream(persistent_ranks: PersistentRanks, tmp_path_factory: pytest.TempPathFactory) -> Stream:
    """Returns what learner_stream.py gives with a learner at a number of ranks; each is run once."""

    @functools.cache
    def at(learner: str, ranks: int) -> Saved:
        folder: Path = tmp_path_factory.mktemp(f"{learner}{ranks}")
        persistent_ranks.run_well(ranks, folder, learner, program=PROGRAMS / "learner_stream.py")
        return [dict(np.load(folder / f"rank{rank}.npz")) for rank in range(ranks)]

    return at


@pytest.mark.parametrize("learner", LEARNERS)
@pytest.mark.parametrize(("ranks", "shares"), [pytest.param(2, [64, 64], marks=pytest.mark.slow), (3, [43, 43, 42])])
@pytest.mark.parametrize("loss", ["mse", "huber"])
def test_parts_of_a_batch_on_several_ranks_give_the_gradient_of_the_full_batch(
    stream: Stream, learner: str, ranks: int, shares: list[int], loss: str
) -> None:
    """Two half batches on two ranks, and uneven shares of 128 on three, sum to one rank's full-batch gradient."""
    full = stream(learner, 1)[0]
    assert np.abs(full[f"gradient_{loss}"]).max() > 0.1
    assert (full[f"gradient_{loss}"] != 0).mean() > 0.5
    parts = stream(learner, ranks)
    assert [int(part["share"]) for part in parts] == shares
    for part in parts:
        np.testing.assert_allclose(part[f"gradient_{loss}"], full[f"gradient_{loss}"], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("learner", LEARNERS)
@pytest.mark.parametrize("ranks", [2, 3])
def test_loss_td_error_and_mean_q_are_those_of_the_full_batch(stream: Stream, learner: str, ranks: int) -> None:
    """The statistics that ride along are global means on every rank, the signals are sums over the ranks."""
    full = stream(learner, 1)[0]
    for part in stream(learner, ranks):
        np.testing.assert_allclose(part["report_mse"], full["report_mse"], rtol=1e-5)
        np.testing.assert_allclose(part["report_huber"], full["report_huber"], rtol=1e-5)
        assert part["signals"].tolist() == [ranks, sum(range(ranks))]


@pytest.mark.parametrize("learner", LEARNERS)
@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_a_hundred_learner_steps_end_in_the_same_weights_at_any_number_of_ranks(
    stream: Stream, learner: str, ranks: int
) -> None:
    """The same stream of global batches gives the same weights within 1e-5, and bitwise the same on all ranks."""
    single, several = stream(learner, 1)[0], stream(learner, ranks)
    for name in ("online", "target"):
        np.testing.assert_allclose(several[0][name], single[name], rtol=0, atol=1e-5)
    for name in ("online", "target", "optimizer/momentum", "optimizer/velocity"):
        assert {part[name].tobytes() for part in several} == {several[0][name].tobytes()}, name


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_both_learners_end_in_the_same_weights(stream: Stream, ranks: int) -> None:
    """The same batches, weights within 1e-5 after a hundred updates; and the same priorities of each transition."""
    general, native = stream("tensorflow", ranks), stream("native", ranks)
    for name in ("online", "target"):
        np.testing.assert_allclose(native[0][name], general[0][name], rtol=0, atol=1e-5)
    for ours, theirs in zip(native, general, strict=True):
        np.testing.assert_allclose(ours["priorities"], theirs["priorities"], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(ours["gradient_huber"], theirs["gradient_huber"], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("ranks", [2, 3])
def test_weights_are_divided_by_the_largest_of_all_ranks(stream: Stream, ranks: int) -> None:
    """The same gradient and loss as one rank with all weights, and every rank learns the job's largest priority."""
    full, parts = stream("tensorflow", 1)[0], stream("tensorflow", ranks)
    assert np.abs(full["gradient_weighted"]).max() > 0.01
    largest = max(float(part["largest_priority"]) for part in parts)
    for part in parts:
        np.testing.assert_allclose(part["gradient_weighted"], full["gradient_weighted"], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(part["report_weighted"], full["report_weighted"], rtol=1e-5)
        assert part["report_weighted"][3] == pytest.approx(largest)


@pytest.mark.parametrize("ranks", [2, 3])
def test_actions_of_several_joints_have_the_gradient_of_the_full_batch(stream: Stream, ranks: int) -> None:
    """DecQN's, Double, Huber and weighted, on actions [B, 2]."""
    full, parts = stream("tensorflow", 1)[0], stream("tensorflow", ranks)
    assert np.abs(full["gradient_joints"]).max() > 0.01
    assert full["gradient_joints"].shape > full["gradient_huber"].shape, "two joints have twice as many outputs"
    for part in parts:
        np.testing.assert_allclose(part["gradient_joints"], full["gradient_joints"], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(part["report_joints"], full["report_joints"], rtol=1e-5)
