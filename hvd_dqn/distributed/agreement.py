"""How ranks come to one mind: about errors, about what rank 0 did, about being the same job, about weights."""

from __future__ import annotations

import errno
import hashlib
import traceback
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

import numpy as np

from hvd_dqn.distributed.communicator import Communicator
from hvd_dqn.errors import JobFault, RankFailure, UserError


def raise_fault_on_any_rank(communicator: Communicator, fault: str | None) -> None:
    """Raises the same JobFault on all ranks if any rank has a fault, naming the ranks; else does nothing.

    Args:
      communicator: the job's.
      fault: this rank's fault, or None.

    Raises:
      JobFault: on all ranks.
    """
    faults = communicator.gather_json(fault)  # COLLECTIVE
    named = [f"rank {rank}: {text}" for rank, text in enumerate(faults) if text is not None]
    if named:
        raise JobFault("\n".join(_without_repeats(named)))


def raise_on_any_rank(communicator: Communicator, action: Callable[[], Any]) -> Any:
    """Runs an action on every rank; if it fails on any of them, all raise an error that names the ranks.

    Returns:
      This rank's result.

    Raises:
      UserError: on all ranks, if all that failed raised one.
      RankFailure: on all ranks, if one raised anything else.
    """
    result: Any = None
    error: str | None = None
    failure: str | None = None
    try:
        result = action()
    except UserError as caught:
        error = str(caught)
    except BaseException as caught:
        failure = _described(caught)
    outcomes = communicator.gather_json([error, failure])  # COLLECTIVE
    failures = [f"rank {rank}: {text}" for rank, (_, text) in enumerate(outcomes) if text is not None]
    if failures:
        raise RankFailure("\n".join(_without_repeats(failures)))
    errors = [text for text, _ in outcomes]
    if any(text is not None for text in errors):
        _raise_named(errors)
    return result


def on_root(communicator: Communicator, action: Callable[[], Any]) -> Any:
    """Runs an action on rank 0 alone and gives its JSON-ready result to all; its error reaches all.

    Raises:
      UserError: on all ranks, for a UserError or OSError.
      RankFailure: on all ranks, for anything else.
    """
    outcome: dict[str, Any] = {}
    if communicator.rank == 0:
        try:
            outcome = {"result": action()}
        except UserError as caught:
            outcome = {"error": str(caught)}
        except OSError as caught:
            full = caught.errno in (errno.ENOSPC, errno.EDQUOT)
            outcome = {"error": f"{caught}: free some space, then give the same command" if full else str(caught)}
        except BaseException as caught:
            outcome = {"failure": f"rank 0: {_described(caught)}"}
    outcome = communicator.broadcast_json(outcome)  # COLLECTIVE
    if "failure" in outcome:
        raise RankFailure(outcome["failure"])
    if "error" in outcome:
        raise UserError(outcome["error"])
    return outcome["result"]


def check_same_job(communicator: Communicator, fingerprint: dict[str, Any]) -> None:
    """Checks that all ranks run the same job.

    Args:
      communicator: the job's.
      fingerprint: JSON-ready values that must be equal everywhere (configuration, code, spaces).

    Raises:
      UserError: on all ranks, showing both sides of each difference.
    """
    fingerprints = communicator.gather_json(fingerprint)  # COLLECTIVE
    lines = []
    for rank, other in enumerate(fingerprints):
        for name in sorted(set(other) | set(fingerprints[0])):
            mine, theirs = fingerprints[0].get(name), other.get(name)
            if mine != theirs:
                lines.append(f"  {name}: {mine!r} on rank 0, {theirs!r} on rank {rank}")
    if lines:
        raise UserError(
            "the ranks do not run the same job:\n"
            + "\n".join(lines)
            + "\nStart all ranks with the same command, configuration files and installation."
        )


def check_same_weights(communicator: Communicator, vectors: Iterable[np.ndarray]) -> None:
    """Compares a checksum of the weights over the ranks.

    Args:
      communicator: the job's.
      vectors: arrays that must be bitwise equal on all ranks.

    Raises:
      JobFault: on all ranks, naming the ranks that differ from the majority.
    """
    digest = hashlib.blake2b(digest_size=16)
    for vector in vectors:
        digest.update(np.ascontiguousarray(vector).tobytes())
    digests = communicator.gather_json(digest.hexdigest())  # COLLECTIVE
    common = max(sorted(set(digests)), key=digests.count)
    odd = [rank for rank, other in enumerate(digests) if other != common]
    if odd:
        raise JobFault(
            f"the weights of rank(s) {', '.join(map(str, odd))} differ from those of the other ranks: "
            "the ranks no longer train one network. Resume from the last checkpoint; if it comes back, look for "
            "ranks with other hardware or libraries, or for a change that lets one rank skip a collective."
        )


def _described(error: BaseException) -> str:
    """Returns an error that no code expects, and where it was raised."""
    return f"unexpected {error!r}\n{''.join(traceback.format_exception(error)).rstrip()}"


def _raise_named(errors: list[str | None]) -> NoReturn:
    """Raises one UserError for per-rank errors; an error that all ranks share is not attributed."""
    if len(set(errors)) == 1:
        raise UserError(errors[0])
    named = [f"rank {rank}: {text}" for rank, text in enumerate(errors) if text is not None]
    raise UserError("\n".join(_without_repeats(named)))


def _without_repeats(named: list[str]) -> list[str]:
    """Shortens "rank r: text" lines whose text has been shown already."""
    shown: dict[str, str] = {}
    lines = []
    for line in named:
        rank, _, text = line.partition(": ")
        lines.append(f"{rank}: the same as {shown[text]}" if text in shown else line)
        shown.setdefault(text, rank)
    return lines
