"""The bars that the project sets itself, and whether the measured medians reach them."""

from __future__ import annotations

from dataclasses import dataclass

from comparison.implementations import OURS

FASTEST = "the fastest peer"


@dataclass(frozen=True)
class Bar:
    """Ours must be at least `factor` times as fast as `rival` on the case."""

    case: str
    rival: str
    factor: float


BARS = (
    Bar("cartpole", "Stable-Baselines3", 8.0),
    Bar("cartpole", FASTEST, 5.0),
    Bar("cartpole-zoo", "Stable-Baselines3", 8.0),
    Bar("cartpole-zoo", FASTEST, 5.0),
    Bar("lunarlander", "Stable-Baselines3", 5.0),
    Bar("lunarlander-zoo", "Stable-Baselines3", 5.0),
    Bar("minatar", "Stable-Baselines3", 3.0),
    Bar("atari", "Stable-Baselines3", 1.2),
)


def judge_bars(medians: dict[str, dict[str, float]]) -> list[dict[str, object]]:
    """Holds the medians against the bars.

    Args:
      medians: env steps per second by case and implementation; what was not measured is absent.

    Returns:
      One record per bar of a measured case: factor asked and reached (None if either side is absent), verdict.
    """
    verdicts: list[dict[str, object]] = []
    for bar in BARS:
        if bar.case not in medians:
            continue
        speeds = medians[bar.case]
        peers = {name: speed for name, speed in speeds.items() if not name.startswith(OURS)}
        rival = max(peers, key=lambda name: peers[name], default="") if bar.rival == FASTEST else bar.rival
        reached = speeds[OURS] / peers[rival] if OURS in speeds and rival in peers else None
        verdict = "NOT MEASURED" if reached is None else "PASS" if reached >= bar.factor else "FALLS SHORT"
        label = f"{bar.rival} ({rival})" if bar.rival == FASTEST and rival else bar.rival
        verdicts.append({"case": bar.case, "rival": label, "asked": bar.factor, "reached": reached, "verdict": verdict})
    return verdicts
