"""When the native learner can be used, and how it is built."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hvd_dqn.distributed.communicator import MPIHandles
from hvd_dqn.errors import UserError
from hvd_dqn.learner.learner import Clock, StepSettings
from hvd_dqn.learner.parameters import ParameterLayout
from hvd_dqn.native.learner import RULES, NativeLearner
from hvd_dqn.native.library import load_library
from hvd_dqn.native.mlp import NativeActionValues, NativeMLP


class Demands(NamedTuple):
    """What a job asks of a learner."""

    network: str  # its registered name
    dueling: bool  # whether it has two streams
    noisy: bool  # whether its weights are noisy
    weighted: bool  # whether losses are weighted
    rule: str | None  # the algorithm's native rule
    precision: str
    on_gpu: bool
    size: int  # W, or 1 where a rank updates alone
    has_mpi: bool
    action_shape: tuple[int, ...]
    masked: bool = False  # whether observations have action masks


def obstacle(demands: Demands) -> str:
    """Returns why this host cannot use the native learner for a job, "" if it can."""
    reasons = {
        "the network is not the MLP": demands.network != "mlp",
        "it has no dueling streams": demands.dueling,
        "it has no noisy weights": demands.noisy,
        "it has no prioritized replay": demands.weighted,
        "it has no action masks": demands.masked,
        "it does not have this algorithm": demands.rule not in RULES or demands.action_shape != (),
        f"it computes in float32, not in {demands.precision}": demands.precision != "float32",
        "it computes on CPUs, and this rank has a GPU": demands.on_gpu,
        "several ranks need an MPI launcher (mpirun, horovodrun --mpi, srun --mpi=pmix)": demands.size > 1
        and not demands.has_mpi,
    }
    found = next((reason for reason, holds in reasons.items() if holds), "")
    if found:
        return found
    try:
        supported = load_library().products_supported()
    except UserError as error:
        return str(error)
    return "" if supported else "this processor has no AVX2 and FMA"


class NativeAgent:
    """Builds the native learner and its ways to act."""

    def __init__(
        self, layout: ParameterLayout, initial: np.ndarray, num_categories: int, observation_dtype: np.dtype
    ) -> None:
        """Takes the network's layout and initial weights [P], and its observations."""
        self._layout, self._initial = layout, initial
        self._observations = (num_categories, observation_dtype)
        self._library = load_library()

    def learner(
        self, settings: StepSettings, *, rule: str, loss: str, mpi: MPIHandles | None, clock: Clock
    ) -> NativeLearner:
        """Returns the learner; see `NativeLearner`."""
        mlp = self._mlp(settings.batch_size_per_rank)
        return NativeLearner(mlp, self._layout, self._initial, settings, rule=rule, loss=loss, mpi=mpi, clock=clock)

    def action_values(self, learner: NativeLearner, *, follow: bool) -> NativeActionValues:
        """Returns a way to act with the learner's present parameters; see `NativeActionValues`."""
        return NativeActionValues(self._mlp(1), learner.online, follow=follow)

    def _mlp(self, rows: int) -> NativeMLP:
        return NativeMLP(self._library, self._layout, *self._observations, rows)
