"""One process per environment (`--vectorization async`): a process that dies is named, and closing is bounded."""

from __future__ import annotations

import contextlib
import queue
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

import gymnasium as gym
from gymnasium.vector import AutoresetMode
from gymnasium.vector.async_vector_env import AsyncState, AsyncVectorEnv, _async_worker

from hvd_dqn.envs.foreign import ForeignCalls, brief, warn
from hvd_dqn.errors import JobFault, UserError

_ANSWER_SECONDS = 5.0


class Workers(AsyncVectorEnv[Any, Any]):
    """Gymnasium's AsyncVectorEnv, whose waits end when a process does.

    Its processes inherit the job's signal handlers and so outlive the scheduler's SIGTERM, as the rank does; they are
    ended by a command, or killed.
    """

    parent_pipes: list[Any]

    def __init__(
        self, members: Sequence[Callable[[], gym.Env[Any, Any]]], names: Sequence[str], calls: ForeignCalls
    ) -> None:
        """Starts the processes.

        Args:
          members: make the environments, each in its process.
          names: of the environments.
          calls: shared by the environments of this process.

        Raises:
          UserError: if an environment cannot be made.
        """
        self._names, self._calls = names, calls
        try:
            super().__init__(members, copy=False, worker=_work, autoreset_mode=AutoresetMode.NEXT_STEP)
        except BaseException:
            self.close_extras()
            raise

    def close_extras(self, timeout: float | None = None, terminate: bool = False) -> None:
        """Asks all processes to end, and kills those that do not."""
        del timeout, terminate
        pipes, processes = getattr(self, "parent_pipes", []), getattr(self, "processes", [])
        with self._calls.closing() as seconds:
            for pipe in pipes:
                with contextlib.suppress(OSError, UserError):
                    pipe.send(("close", None))
            deadline = time.monotonic() + seconds
            for process in processes:
                process.join(max(0.0, deadline - time.monotonic()))
        alive = [name for name, process in zip(self._names, processes, strict=False) if process.is_alive()]
        if alive:
            warn(f"close() of {', '.join(alive)} does not return: the processes are killed")
        for process in processes:
            process.kill()
            process.join()
        for pipe in pipes:
            pipe.close()
        self._state = AsyncState.DEFAULT

    def _check_spaces(self) -> None:
        """Wraps the pipes, which exist now, then compares the spaces."""
        triples = zip(self.parent_pipes, self.processes, self._names, strict=True)
        self.parent_pipes = [_Pipe(pipe, process, name, self._calls) for pipe, process, name in triples]
        super()._check_spaces()

    def _raise_if_errors(self, successes: Iterable[bool]) -> None:
        """Raises the first failed environment's own fault."""
        if all(successes):
            return
        self._state = AsyncState.DEFAULT
        try:
            index, kind, error, _ = self.error_queue.get(timeout=_ANSWER_SECONDS)
        except queue.Empty:
            raise JobFault("a process of an environment failed without a message") from None
        if issubclass(kind, UserError):
            raise kind(str(error))
        raise JobFault(f"the process of {self._names[index]} raised {brief(error)}")


class _Pipe:
    """The connection to one process; using it raises JobFault if the process has died."""

    def __init__(self, pipe: Connection, process: Any, name: str, calls: ForeignCalls) -> None:
        self._pipe, self._process, self._name, self._calls = pipe, process, name, calls

    def send(self, message: Any) -> None:
        try:
            self._pipe.send(message)
        except OSError:
            raise self._death() from None

    def recv(self) -> Any:
        self._calls.running = self._name, "the answer"
        # The process's own children may hold the other end: its death alone does not close the pipe.
        if not self._pipe.poll(0) and self._pipe not in wait([self._pipe, self._process.sentinel]):
            raise self._death()
        try:
            answer = self._pipe.recv()
        except (EOFError, OSError):
            raise self._death() from None
        self._calls.running = None
        return answer

    def close(self) -> None:
        self._pipe.close()

    def _death(self) -> JobFault:
        self._process.join(_ANSWER_SECONDS)
        code = self._process.exitcode
        how = f"killed by {signal.Signals(-code).name}" if code and code < 0 else f"exit code {code}"
        return JobFault(
            f"the process of {self._name} has died ({how}): it ran out of memory, or native code of the environment "
            "crashed or ended the process"
        )


def _work(index: int, make: Callable[[], gym.Env[Any, Any]], pipe: Connection, *others: Any) -> None:
    """Runs one environment in its process, as Gymnasium does; reports one that cannot be made."""
    try:
        env = make()
    except UserError as error:
        errors = others[2]
        errors.put((index, type(error), str(error), ""))
        pipe.recv()
        pipe.send((None, False))
        return
    _async_worker(index, lambda: env, pipe, *others)
