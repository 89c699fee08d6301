"""Groups of runs that differ in their seed alone, named by what differs between them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from hvd_dqn.report.reading import RunData
from hvd_dqn.statistics import bootstrap_interval

WITHOUT_EFFECT = frozenset(
    {
        *("seed", "name", "runs_dir", "resume", "allow_missing_replay", "checkpoint_path", "keep_checkpoints"),
        *("log_period", "checkpoint_period", "profile", "progress", "stall_timeout_seconds"),
        *("time_limit", "time_reserve_seconds"),
    }
)
"""Fields of the configuration in which the runs of a group may differ: they change neither results nor speed."""
TASK = frozenset({"env"})
"""Field in which the runs of a group differ where a comparison is over several environments."""
RANKS = "ranks"
"""Of a job, no field of the configuration; its groups differ in it, since their speed does."""
CHOSEN = "learner"
"""A field that `auto` leaves to the program; it names a group only where nothing else does."""
PRESET = "preset"
"""Stands among the differing settings where the presets of groups differ."""
_MOST_WORDS = 3


class Preset(NamedTuple):
    """A preset with all settings of a run that has no other flags."""

    name: str
    settings: Mapping[str, Any]


class Group(NamedTuple):
    """Runs that differ in their seed alone."""

    name: str
    runs: list[RunData]
    preset: Preset
    """Of the first of them."""

    @property
    def settings(self) -> dict[str, Any]:
        """Returns the settings that the runs share."""
        return settings_of(self.runs[0])

    def summary(self, which: str) -> dict[str, Any] | None:
        """Returns the mean return with its 95 % interval, and of how many runs; None without any.

        Args:
          which: final, best or last evaluation. The interval is one over seeds; a single run has that of its final
            episodes.
        """
        records = [
            record for run in self.runs if (record := getattr(run, which)) and record.get("mean_return") is not None
        ]
        if not records:
            return None
        scores = np.array([record["mean_return"] for record in records], np.float64)
        low, high = bootstrap_interval(scores) if len(scores) > 1 else (records[0].get("low"), records[0].get("high"))
        return {"mean_return": float(scores.mean()), "runs": len(scores), "low": low, "high": high}


def preset_of(run: RunData, presets: Sequence[Preset]) -> Preset:
    """Returns the preset that a run's command names; else, as of a resumed run, the one from which it differs least.

    Presets of the run's environment come first.
    """
    words = [part for word in run.about.get("command", []) for part in str(word).split("=", 1)]
    named = {following for word, following in itertools.pairwise(words) if word == "--preset"}
    found = [preset for preset in presets if preset.name in named] or presets
    return min(found, key=lambda preset: (preset.settings["env"] != run.config["env"], len(changed(run, preset))))


def changed(run: RunData, preset: Preset) -> list[str]:
    """Returns the settings of a run that are not its preset's; what a preset leaves to the program is none."""
    settings = settings_of(run)
    return [name for name, value in preset.settings.items() if name in settings and settings[name] != value != "auto"]


def settings_of(run: RunData) -> dict[str, Any]:
    """Returns the settings that affect a run's results or speed, with its number of ranks."""
    shown = {name: value for name, value in run.config.items() if name not in WITHOUT_EFFECT}
    return shown | {RANKS: run.ranks}


def grouped(runs: Sequence[RunData], presets: Sequence[Preset], together: frozenset[str] = frozenset()) -> list[Group]:
    """Returns the groups of runs in the order in which the runs are given.

    Args:
      runs: at least one.
      presets: all that there are. Names leave out the settings that are those of the group's preset.
      together: settings in which the runs of a group may differ, too.
    """
    by_settings: dict[str, list[RunData]] = {}
    for run in runs:
        key = {name: value for name, value in settings_of(run).items() if name not in together}
        by_settings.setdefault(repr(sorted(key.items())), []).append(run)
    parts = [Group("", part, preset_of(part[0], presets)) for part in by_settings.values()]
    differing = [name for name in differences([part.settings for part in parts]) if name not in together]
    chosen = [name for name in differing if name != CHOSEN] or differing
    if len({part.preset.name for part in parts}) > 1:
        chosen = [PRESET, *chosen]
    names = [_name(part, chosen) for part in parts]
    if len(set(names)) < len(names):
        names = [_name(part, list(dict.fromkeys([*chosen, *differing]))) for part in parts]
    unique = [name if names.count(name) == 1 else f"{name} ({i})" for i, name in enumerate(names, 1)]
    return [part._replace(name=name) for name, part in zip(unique, parts, strict=True)]


def differences(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns the names of the settings that are not equal in all of some mappings, in their order."""
    names = dict.fromkeys(name for own in settings for name in own)
    return [name for name in names if any(own.get(name) != settings[0].get(name) for own in settings)]


def text_of(value: Any) -> str:
    """Returns a setting's value for people."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return " ".join(map(str, value)) or "none"
    if isinstance(value, float):
        return f"{value:g}"
    return f"{value:,}" if isinstance(value, int) else str(value) or "none"


def flag(name: str) -> str:
    """Returns the flag of a field."""
    return f"--{name.replace('_', '-')}" if name != RANKS else RANKS


def _name(group: Group, differing: Sequence[str]) -> str:
    """Returns a group's name: where it differs from the others and from its preset, or the only run's name."""
    settings, preset = group.settings, group.preset
    if not differing:
        return group.runs[0].name if len(group.runs) == 1 else str(settings["env"])
    own = [name for name in differing if name in settings and name not in ("env", RANKS)]
    words = [_word(name, settings[name]) for name in own if settings[name] != preset.settings.get(name)]
    if len(words) > _MOST_WORDS:
        words = [*words[:_MOST_WORDS], f"{len(words) - _MOST_WORDS} more"]
    if "env" in differing:
        words = [str(settings["env"]), *words]
    elif PRESET in differing or not words:
        words = [f"preset {preset.name}", *words]
    if RANKS in differing:
        words.append("1 rank" if settings[RANKS] == 1 else f"{settings[RANKS]} ranks")
    return ", ".join(words)


def _word(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return flag(name) if value else f"--no-{name.replace('_', '-')}"
    return f"{flag(name)} {text_of(value)}"
