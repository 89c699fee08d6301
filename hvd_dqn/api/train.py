"""Training from a notebook or a program, on one rank."""

from __future__ import annotations

import contextlib
import json
import runpy
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any

from hvd_dqn.api.run import Run, load
from hvd_dqn.cli.arguments import parse
from hvd_dqn.cli.entry import program
from hvd_dqn.distributed.launcher import Launch, read_launch
from hvd_dqn.distributed.runtime import prepare_environment, start
from hvd_dqn.errors import UserError
from hvd_dqn.run.directory import check_checkpoint_path, read_config_of
from hvd_dqn.run.stopping import StopRequest
from hvd_dqn.strategies import check_ranks

if TYPE_CHECKING:
    from hvd_dqn.training.job import Job

Callback = Callable[[dict[str, Any]], Any]
"""Takes a line of the metrics (docs/reference/metrics.md); returns False to save and stop the run."""


def train(config: Mapping[str, Any] | None = None, *, callbacks: Sequence[Callback] = (), **fields: Any) -> Run:
    """Trains in this process, on one rank, and returns the agent of the best checkpoint.

    Ctrl-C, or a notebook's stop button, saves and stops; `hvd_dqn.train(resume=run.place)` resumes.

    Args:
      config: fields of the configuration by name (docs/reference/flags.md, with underscores), `preset` and `config`
        (a file) included.
      callbacks: called with each line of the metrics.
      **fields: the same as `config`; they override it.

    Raises:
      UserError: if something in the configuration, in the environment or in a run to resume is wrong.

    Examples:
      >>> import hvd_dqn
      >>> run = hvd_dqn.train(total_env_steps=2_000, seed=1, name="first")  # doctest: +ELLIPSIS
      hvd_dqn on CartPole-v1, run directory ...
      >>> len(run.metrics) > 2
      True
    """
    if read_launch().size > 1:
        raise UserError("hvd_dqn.train is for one process: on several ranks run train.py under the launcher")
    flags = _flags({**(config or {}), **fields})
    asked = parse(flags, read_config_of, quiet=True)
    check_ranks(asked, 1, by_mpi=False, elastic=False)
    check_checkpoint_path(asked.job.checkpoint_path, bool(asked.job.resume), ranks=1)
    own, place = asked.runtime, [""]
    threads = prepare_environment(Launch(), own.threads_per_rank, own.stall_timeout_seconds, bind_to_cores=False)
    runtime = start(Launch(), threads, own.device, own.profile)
    from hvd_dqn.training.run import run_job  # NumPy and TensorFlow: after the thread pools' sizes are set

    loop: Callable[[Job], bool] = runpy.run_path(str(program()))["train"]

    def followed(job: Job) -> bool:
        place[0] = str(job.directory.path)
        job.records.listeners.append(_Callbacks(callbacks, job.stop))
        return loop(job)

    stop = StopRequest()
    with _interruptible(stop):
        run_job(asked, runtime, stop, [str(program()), *flags], followed)
    return load(place[0])


def _flags(fields: Mapping[str, Any]) -> list[str]:
    """Returns the command line that stands for fields of the configuration."""
    flags = []
    for name, value in fields.items():
        flag = "--" + name.replace("_", "-")
        if isinstance(value, bool):
            flags.append(flag if value else flag.replace("--", "--no-", 1))
        elif isinstance(value, (tuple, list)):
            flags += [flag, *map(str, value)]
        else:
            flags.append(f"{flag}={json.dumps(value) if isinstance(value, Mapping) else value}")
    return flags


class _Callbacks:
    """Calls callbacks with each line of the metrics; one that returns False stops the job."""

    def __init__(self, callbacks: Sequence[Callback], stop: StopRequest) -> None:
        self._callbacks, self._stop = callbacks, stop

    def take(self, record: dict[str, Any]) -> None:
        """Calls them."""
        for callback in self._callbacks:
            if callback(dict(record)) is False:
                self._stop.requested, self._stop.reason = True, "a callback"

    def close(self) -> None:
        """Does nothing."""


@contextlib.contextmanager
def _interruptible(stop: StopRequest) -> Iterator[None]:
    """Lets Ctrl-C ask for a stop; a second one raises KeyboardInterrupt, as it does without a job."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Python handles signals in the main thread only
        return
    before = signal.getsignal(signal.SIGINT)

    def handle(number: int, frame: FrameType | None) -> None:
        if stop.requested:
            signal.default_int_handler(number, frame)
        stop.requested, stop.reason = True, "SIGINT"

    signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
