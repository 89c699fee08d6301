"""Run directories with metrics that are made up, for the tests of pages and comparisons."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hvd_dqn.config import Config, flatten, replace
from hvd_dqn.presets import PRESETS
from hvd_dqn.report.groups import Preset
from hvd_dqn.run.profile import PHASES

DEFAULTS = flatten(Config())
PRESET_LIST = [Preset(name, flatten(replace(Config(), flat))) for name, flat in PRESETS.items()]


def evaluation(env_steps: int, mean_return: float, **fields: Any) -> dict[str, Any]:
    """Returns a record of an evaluation."""
    own = {"mean_return": mean_return, "std_return": 1.0, "episodes": 20}
    return _record("evaluation", env_steps) | own | {"start_value": 9.0, "discounted_return": 7.0} | fields


def training(env_steps: int, **fields: Any) -> dict[str, Any]:
    """Returns a record of training on ranks of which the slowest waits 10 µs and the fastest 30."""
    times = {f"{phase}_microseconds_{of}": 20.0 for phase in PHASES for of in ("min", "median", "max")}
    times |= {"allreduce_microseconds_min": 10.0, "allreduce_microseconds_max": 30.0}
    times |= {"busy_microseconds_min": 100.0, "busy_microseconds_median": 120.0, "busy_microseconds_max": 160.0}
    own = {"mean_return": env_steps / 100, "epsilon": 0.5, "loss": 2.0, "abs_td_error": 1.0, "mean_q": 3.0}
    return _record("training", env_steps) | own | times | {"env_steps_per_second": 1000.0} | fields


def final(env_steps: int, mean_return: float, **fields: Any) -> dict[str, Any]:
    """Returns the record of a final evaluation."""
    own = {"mean_return": mean_return, "low": mean_return - 1, "high": mean_return + 1, "episodes": 100}
    return _record("final_evaluation", env_steps) | own | fields


def write_run(folder: Path, records: list[dict[str, Any]], ranks: int = 1, **config: Any) -> Path:
    """Writes a run directory and returns it."""
    folder.mkdir(parents=True)
    about = {
        "config": flatten(replace(Config(), PRESETS["cartpole"]))
        | {"name": folder.name, "learner": "native", **config},
        "ranks": ranks,
        "command": ["train.py", "--preset", "cartpole"],
        "versions": {"python": "3.11"},
        "machine": {"processor": "an <abacus> & a pencil"},
        "git_revision": "abc",
    }
    (folder / "config.json").write_text(json.dumps(about))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


def whole_run(folder: Path, score: float, **config: Any) -> Path:
    """Writes a run that has ended with this score, and returns its directory."""
    records = [make(steps, score * steps / 4000) for steps in (2000, 4000) for make in (_trained, evaluation)]
    return write_run(folder, [*records, final(4000, score)], **config)


def _trained(env_steps: int, mean_return: float) -> dict[str, Any]:
    return training(env_steps, mean_return=mean_return)


def _record(kind: str, env_steps: int) -> dict[str, Any]:
    return {"kind": kind, "env_steps": env_steps, "unix_time": 1e9 + env_steps, "seconds": env_steps / 1000}
