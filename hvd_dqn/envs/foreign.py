"""Calls into environments, which are foreign code: whatever they raise becomes a fault that names them."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import gymnasium

from hvd_dqn.envs.checks import Unfit
from hvd_dqn.errors import JobFault, UserError

_CLOSE_SECONDS = 5.0
"""For closing all environments of a process together."""
_LIBRARIES = (Path(gymnasium.__file__).parent, Path(__file__).parents[1])
_MOST_CHARACTERS = 2_000
OLD_INTERFACE = (
    "reset(seed=..., options=...) must return (observation, info), and step(action) (observation, reward, terminated, "
    "truncated, info). Wrap an environment of the older interface in shimmy's GymV21CompatibilityV0"
)
"""What to do with an environment that follows the interface before Gymnasium 0.26."""


class ForeignCalls:
    """What the environments of one process share: which call is running, and the time that closing may take."""

    def __init__(self) -> None:
        """Knows of no call."""
        self.running: tuple[str, str] | None = None
        """The environment and the call, for the watchdog's message; None while no foreign code runs."""
        self._close_seconds = _CLOSE_SECONDS
        self._warned = False

    def __str__(self) -> str:
        """Returns the running call in words, "" if there is none."""
        running = self.running
        return f"{running[1]} of {running[0]}" if running else ""

    @contextlib.contextmanager
    def closing(self) -> Iterator[float]:
        """Yields how many seconds closing may still take; what the block takes is subtracted for the next."""
        since = time.monotonic()
        yield self._close_seconds
        self._close_seconds = max(0.01, self._close_seconds - (time.monotonic() - since))

    def close(self, name: str, close: Callable[[], object]) -> None:
        """Closes an environment; one that raises or does not return costs a warning, never the run."""
        problems: list[str] = []

        def run() -> None:
            try:
                close()
            except BaseException as error:
                problems.append(f"raised {brief(error)}")

        thread = threading.Thread(target=run, name="close", daemon=True)  # no thread that the process waits for
        with self.closing() as seconds:
            thread.start()
            thread.join(seconds)
        if thread.is_alive():
            problems.append("does not return")
        if problems and not self._warned:
            self._warned = True
            warn(f"close() of {name} {problems[0]}: ignored, and not reported again")


@contextlib.contextmanager
def foreign(name: str, call: str) -> Iterator[None]:
    """Turns whatever an environment raises into a JobFault, SystemExit and KeyboardInterrupt included.

    Our own wrappers' `Unfit` passes: the guard reports it.
    Ctrl-C does not come here as an exception: the job handles the signal.

    Args:
      name: the environment.
      call: which of its methods runs.
    """
    try:
        yield
    except (UserError, Unfit):
        raise
    except BaseException as error:
        raise JobFault(f"{name} raised {brief(error)}, in {call}{_remedy(error)}{where(error)}") from None


def brief(error: BaseException) -> str:
    """Returns an exception's type and message, whatever its __str__ does."""
    return "".join(traceback.format_exception_only(type(error), error)).strip()[:_MOST_CHARACTERS]


def where(error: BaseException) -> str:
    """Returns the lines of the environment's own code that an exception came through, "" if there are none."""
    own = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not any(folder in Path(frame.filename).parents for folder in _LIBRARIES)
    ]
    return "\n" + "".join(traceback.format_list(own)).rstrip() if own else ""


def end_forked(process: int, name: str) -> None:
    """Ends this process if an environment has forked it: it would go through the job a second time, in its files.

    Args:
      process: id of the one in which the environment was made.
      name: of the environment.
    """
    if os.getpid() != process:
        warn(f"{name} has forked a process that returned to the job: the process ends")
        os._exit(1)


def warn(text: str) -> None:
    """Prints a warning, if there is a place to print it to."""
    with contextlib.suppress(OSError, ValueError):
        print(f"hvd_dqn: {text}", file=sys.stderr, flush=True)


def _remedy(error: BaseException) -> str:
    """Returns what to do where Gymnasium's own wrappers stumble over the older interface."""
    text = str(error) if isinstance(error, (TypeError, ValueError)) else ""
    old = "unpack" in text or any(f"unexpected keyword argument '{name}'" in text for name in ("seed", "options"))
    return f". If this is the older interface: {OLD_INTERFACE}" if old else ""
