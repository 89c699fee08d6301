"""Laws of --learner: all ranks take the same one, and native only where every rank can."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from hvd_dqn.algorithms.dqn import DQN
from hvd_dqn.config import Config, replace
from hvd_dqn.distributed.communicator import MPIHandles
from hvd_dqn.envs.spaces import Spaces
from hvd_dqn.errors import UserError
from hvd_dqn.training import agent
from hvd_dqn.training.agent import choose_learner

spec = importlib.util.find_spec("hvd_dqn.native")
needs_native = pytest.mark.skipif(spec is None or spec.origin is None, reason="there is no native learner here")
CARTPOLE = Spaces((4,), np.dtype(np.float32), 0, 2)


@dataclass
class Ranks:
    """This rank, which gathers its own word and those of the others; the collective itself is tested on real ranks."""

    others: list[str] = field(default_factory=list)
    mpi_handles: MPIHandles | None = None
    gathered: list[str] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Returns W."""
        return 1 + len(self.others)

    def gather_json(self, value: str) -> list[str]:
        """Returns this rank's value and the others'."""
        self.gathered.append(value)
        return [value, *self.others]


@dataclass
class Up:
    """What `choose_learner` asks of a runtime."""

    communicator: Any
    on_gpu: bool = False
    servers: None = None


MPI = MPIHandles("libmpi.so", 1, 2, 3)


def _choose(
    learner: str,
    ranks: Ranks | None = None,
    *,
    network: str = "mlp",
    algorithm: Any = DQN("mse", False),  # noqa: B008 - it holds no state
    on_gpu: bool = False,
    **changes: Any,
) -> str:
    config = replace(Config(), {"learner": learner, **changes})
    return choose_learner(config, Up(ranks or Ranks(), on_gpu), network, algorithm, CARTPOLE)  # type: ignore[arg-type]


def test_tensorflow_is_taken_where_it_is_asked_for_without_a_word_between_ranks() -> None:
    ranks = Ranks(["this processor has no AVX2 and FMA"])
    assert _choose("tensorflow", ranks) == "tensorflow"
    assert ranks.gathered == []


@needs_native
def test_auto_takes_native_where_every_rank_can() -> None:
    assert _choose("auto") == "native"
    assert _choose("auto", Ranks(["", ""], MPI)) == "native"
    assert _choose("native", Ranks([""], MPI)) == "native"


class _NoNativeRule(DQN):
    def __init__(self) -> None:
        super().__init__("mse", False)
        self.native_rule = None


OBSTACLES: list[tuple[dict[str, Any], str]] = [
    ({"network": "cnn"}, "the network is not the MLP"),
    ({"dueling": True}, "it has no dueling streams"),
    ({"noisy": True}, "it has no noisy weights"),
    ({"algorithm": _NoNativeRule()}, "it does not have this algorithm"),
    ({"precision": "bfloat16"}, "it computes in float32, not in bfloat16"),
    ({"on_gpu": True}, "this rank has a GPU"),
    ({"ranks": Ranks([""])}, "several ranks need an MPI launcher"),
]


@needs_native
@pytest.mark.parametrize(
    ("job", "reason"), OBSTACLES, ids=["cnn", "dueling", "noisy", "algorithm", "precision", "gpu", "no mpi"]
)
def test_a_job_that_native_cannot_run_takes_tensorflow_or_is_refused_with_rank_reason_and_remedy(
    job: dict[str, Any], reason: str
) -> None:
    assert _choose("auto", **job) == "tensorflow"
    with pytest.raises(UserError) as caught:
        _choose("native", **job)
    for words in ("cannot run this job, on rank 0: ", reason, "--learner tensorflow"):
        assert words in str(caught.value)


@pytest.mark.parametrize("rank", [1, 2])
def test_one_rank_that_cannot_makes_all_take_tensorflow_and_is_named(rank: int) -> None:
    others = ["", ""]
    others[rank - 1] = "this processor has no AVX2 and FMA"
    assert _choose("auto", Ranks(others, MPI)) == "tensorflow"
    if spec is not None and spec.origin is not None:
        with pytest.raises(UserError, match=f"on rank {rank}: this processor has no AVX2 and FMA"):
            _choose("native", Ranks(others, MPI))


@needs_native
@pytest.mark.parametrize("way", ["missing", "another's", "no avx2"])
def test_a_rank_whose_library_or_processor_will_not_do_says_so_to_all(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hvd_dqn.native import build, library

    class _Narrow:
        def products_supported(self) -> int:
            return 0

    if way == "missing":
        monkeypatch.setattr(library, "LIBRARY", "_no_such_library")
    elif way == "no avx2":
        monkeypatch.setattr(build, "load_library", _Narrow)
    else:
        monkeypatch.setattr(library, "source_digest", lambda: "0")
    words = {"missing": "is missing on this host", "no avx2": "no AVX2 and FMA", "another's": "from other sources"}[way]
    ranks = Ranks([""], MPI)
    assert _choose("auto", ranks) == "tensorflow"
    assert words in ranks.gathered[0]
    with pytest.raises(UserError, match=f"on rank 0: .*{words}"):
        _choose("native", Ranks([""], MPI))


@pytest.mark.parametrize("left", ["nothing", "a folder of bytecode"])
def test_without_its_folder_the_native_learner_is_not_there(left: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Git leaves __pycache__ behind when a package is deleted, which Python takes for a package without a file."""
    namespace = None if left == "nothing" else importlib.util.spec_from_loader("hvd_dqn.native", None)
    monkeypatch.setattr(agent.importlib.util, "find_spec", lambda name: namespace)
    assert _choose("auto") == "tensorflow"
    with pytest.raises(UserError, match="on rank 0: this installation does not have it"):
        _choose("native")
