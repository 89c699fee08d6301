"""hvd-dqn doctor: examines hosts, libraries and the network between the ranks, and says what to change."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TextIO

import tyro

from hvd_dqn.cli.examination import Evidence, examine
from hvd_dqn.cli.findings import Finding, judge
from hvd_dqn.cli.parsing import parse_dataclass
from hvd_dqn.cli.ranks import refuse
from hvd_dqn.distributed.launcher import read_launch
from hvd_dqn.errors import EXIT_DONE, EXIT_USER_ERROR, UserError
from hvd_dqn.run.stopping import StopRequest
from hvd_dqn.run.supervised import supervise
from hvd_dqn.run.terminal import watched_terminal

PROGRAM = "hvd-dqn doctor"
DESCRIPTION = """Examines hosts, libraries and the network between the ranks, and says what to change.

  hvd-dqn doctor                                this host
  horovodrun -np 4 hvd-dqn doctor               four ranks, started as training would be
  mpirun -np 4 hvd-dqn doctor --folder /scratch/runs
  hvd-dqn doctor --json > doctor.json           for a bug report

Exit code 0: training can run, perhaps with warnings. 2: it cannot."""
_MARKS = {"ok": ("✓", "+", "32"), "warning": ("!", "!", "33"), "fault": ("✗", "X", "31")}
"""Each mark, its form for terminals without Unicode, and its colour (an SGR code of ECMA-48)."""


@dataclass(frozen=True)
class Asked:
    """What is asked for."""

    folder: Annotated[str, tyro.conf.arg(metavar="DIR")] = "runs"
    """Folder that all ranks are to share, such as the --runs-dir of training."""
    json: bool = False
    """Print one JSON object: the findings, and all facts of each rank."""
    wait_seconds: float = 120.0
    """Time limit of each step, such as joining the other ranks."""


def main(arguments: Sequence[str]) -> int:
    """Examines this rank; rank 0 reports. Returns the exit code."""
    launch = read_launch()
    try:
        asked = parse_dataclass(Asked, arguments, PROGRAM, DESCRIPTION, quiet=launch.rank > 0)
        if not asked.wait_seconds > 0:
            raise UserError(f"--wait-seconds is {asked.wait_seconds}: give a positive number")
    except UserError as error:
        return refuse(PROGRAM, error, launch, StopRequest())
    evidence = Evidence(launch)
    evidence.ended = supervise(
        lambda send: examine(launch, Path(os.path.expanduser(asked.folder)), asked.wait_seconds, send),
        evidence.receive,
        asked.wait_seconds,
    )
    if launch.rank > 0:
        return _follow(evidence, asked.wait_seconds)
    findings = judge(evidence)
    stream = watched_terminal()
    if asked.json:
        print(json.dumps({"findings": [f._asdict() for f in findings], "evidence": dataclasses.asdict(evidence)}))
    else:
        write_report(findings, stream or sys.stdout, colours=stream is not None)
    return EXIT_USER_ERROR if any(finding.mark == "fault" for finding in findings) else EXIT_DONE


def _follow(evidence: Evidence, wait_seconds: float) -> int:
    """Ends a rank that does not report. One that failed gives rank 0 time to report before a launcher ends it."""
    reason = evidence.problem or evidence.ended
    if not reason:
        return EXIT_DONE
    place = f"rank {evidence.launch.rank} on {socket.gethostname()}"
    print(f"{PROGRAM}: {place}, while {evidence.doing}: {reason}", file=sys.stderr, flush=True)
    time.sleep(wait_seconds)
    return EXIT_USER_ERROR


def write_report(findings: Sequence[Finding], stream: TextIO, *, colours: bool) -> None:
    """Writes one line per finding, each problem with its remedy, and a summary.

    Args:
      findings: what was found.
      stream: where to.
      colours: whether the stream is a terminal.
    """
    unicode = (stream.encoding or "").lower().replace("-", "") == "utf8"
    width = max(len(finding.name) for finding in findings)
    lines = []
    for mark, name, text, remedy in findings:
        symbol, plain, colour = _MARKS[mark]
        shown = symbol if unicode else plain
        shown = f"\033[{colour}m{shown}\033[0m" if colours else shown
        lines.append(f"{shown} {name:<{width}}  {text}")
        if remedy:
            lines.append(f"  {'':<{width}}  what to change: {remedy}")
    faults, warnings = (sum(finding.mark == mark for finding in findings) for mark in ("fault", "warning"))
    verdict = "training cannot run like this" if faults else "training can run"
    lines.append(f"{faults} fault(s), {warnings} warning(s): {verdict}.")
    stream.write("\n".join(lines) + "\n")  # in a single write, since launchers prefix each write with the rank
    stream.flush()
