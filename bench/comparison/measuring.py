"""Takes one measurement of one implementation in a fresh process, and refuses it where it is not what was asked."""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comparison.cases import Case
from comparison.implementations import Implementation, Setting
from comparison.ours import measure_ours
from comparison.processes import end, ended_within, last_words, start
from comparison.protocol import RESULT_PREFIX, Task

RATIO_TOLERANCE = 0.03
"""How far updates per env step may be from the case's."""
LEAST_CPU_SHARE = 0.9
"""A process that had less of its core than this was disturbed, and is measured again."""
ATTEMPTS = 4
PAUSE_SECONDS = 5.0
"""Between two attempts."""


@dataclass(frozen=True)
class Durations:
    """Seconds of the phases of a measurement."""

    warm: float
    measured: float
    limit: float
    """Of the whole process, start included."""


@dataclass(frozen=True)
class Measurement:
    """What came of it: a speed, or the reason why there is none."""

    env_steps_per_second: float | None
    reason: str
    details: dict[str, Any]


def measure(
    implementation: Implementation, case: Case, setting: Setting, durations: Durations, peers_python: str, seed: int
) -> Measurement:
    """Measures once; again if something else had the core meanwhile."""
    task = Task(
        case=case,
        num_envs=setting.num_envs,
        updates_per_burst=setting.updates_per_burst,
        option=setting.option,
        warm_seconds=durations.warm,
        seconds=durations.measured,
        seed=seed,
    )
    measurement = Measurement(None, "not measured", {})
    for _ in range(ATTEMPTS):
        with tempfile.TemporaryDirectory(prefix="throughput-") as folder:
            if implementation.module:
                command = [peers_python, "-m", implementation.module, task.to_json()]
                answer = _measure_peer(command, Path(folder), durations.limit)
            else:
                answer = measure_ours(task, Path(folder), durations.limit)
        measurement = judge(task, answer)
        if measurement.env_steps_per_second is not None or "disturbed" not in measurement.reason:
            break
        time.sleep(PAUSE_SECONDS)
    return measurement


def judge(task: Task, answer: dict[str, Any]) -> Measurement:
    """Turns a process' answer into a speed, or refuses it."""
    for kind in ("failed", "not_applicable"):
        if kind in answer:
            return Measurement(None, answer[kind], answer)
    ratio = answer["updates"] * task.case.train_period / max(1, answer["env_steps"])
    details = {**answer, "updates_relative_to_asked": ratio}
    if abs(ratio - 1.0) > RATIO_TOLERANCE:
        return Measurement(None, f"refused: made {ratio:.3f} times the updates asked for", details)
    share = answer["cpu_seconds"] / answer["seconds"]
    if share < LEAST_CPU_SHARE:
        return Measurement(None, f"disturbed: had {share:.0%} of its core", details)
    return Measurement((answer["env_steps"] - answer["reset_steps"]) / answer["seconds"], "", details)


def _measure_peer(command: list[str], folder: Path, limit: float) -> dict[str, Any]:
    try:
        process = start(command, folder)
    except OSError as error:
        return {"failed": f"cannot start {command[0]}: {error}"}
    try:
        if not ended_within(process, limit):
            return {"failed": f"not finished after {limit:.0f} s"}
    finally:
        end(process)
    for line in (folder / "stdout").read_text(errors="replace").splitlines():
        if line.startswith(RESULT_PREFIX):
            answer = json.loads(line.removeprefix(RESULT_PREFIX))
            return answer if answer else {"failed": "it ended before the measurement was complete"}
    return {"failed": last_words(folder)}
