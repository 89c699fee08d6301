"""The implementations: how each is started, which of its settings are tried, and what does not apply to it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from comparison.cases import Case

MOST_ENV_STEPS_PER_BURST = 320
"""No setting collects more env steps before its updates than this: longer bursts would be faster for some peers, but
act ever longer on outdated weights. 320 is five steps of 64 environments; the zoo's CartPole settings have 256."""

OURS = "hvd_dqn"


@dataclass(frozen=True)
class Setting:
    """One way to run an implementation on a case; the replay ratio is the case's in all of them."""

    num_envs: int
    updates_per_burst: int
    option: str = ""

    @property
    def in_envpool(self) -> bool:
        """Whether the environments are EnvPool's and not Gymnasium's or the library's own."""
        return "envpool" in self.option.split()

    def __str__(self) -> str:
        """Names the setting in a table."""
        envs = f"{self.num_envs} env{'s' if self.num_envs > 1 else ''}"
        burst = f", {self.updates_per_burst} updates in a row" if self.updates_per_burst > 1 else ""
        return f"{envs}{burst}{', ' + self.option if self.option else ''}"


@dataclass(frozen=True)
class Implementation:
    """A peer, or ourselves."""

    name: str
    module: str
    """The peer's module below bench/; empty for ourselves."""
    choices: tuple[tuple[int, bool, str], ...]
    """Settings to try: number of environments, whether updates are saved up into long bursts, option."""
    atari_choices: tuple[tuple[int, bool, str], ...]
    missing: Callable[[Case], str] = lambda case: ""
    """Returns why the implementation has no such case; empty if it has."""

    def settings(self, case: Case) -> list[Setting]:
        """Returns the settings to try on a case, without repetitions.

        A peer is given bursts that fit its number of environments without a remainder; train.py counts by itself and
        makes what is due after each vector step, here said rounded down.
        """
        found: list[Setting] = []
        for num_envs, saved_up, option in self.atari_choices if case.is_atari else self.choices:
            if not self.module:
                found.append(Setting(num_envs, max(1, num_envs // case.train_period), option))
                continue
            least = math.lcm(num_envs, case.train_period)
            times = max(1, MOST_ENV_STEPS_PER_BURST // least) if saved_up else 1
            setting = Setting(num_envs, least * times // case.train_period, option)
            if setting not in found:
                found.append(setting)
        return found


def _cleanrl_misses(case: Case) -> str:
    if case.is_atari:
        return "its Atari script needs wrappers that Gymnasium 1.x no longer has"
    return "" if case.hidden_sizes == (120, 84) else "its script fixes the network at 120-84"


def _rejax_misses(case: Case) -> str:
    return "" if case.env in {"CartPole-v1", "Flat/Breakout-v1"} else "the environment does not exist in JAX"


def _skrl_misses(case: Case) -> str:
    return "no Atari example; its memory would hold float32 images" if case.is_atari else ""


def _sb3_choices(library: str) -> tuple[tuple[int, bool, str], ...]:
    """Returns the choices of Stable-Baselines3 and its sibling, which share their environments."""
    dummy, envpool = f"{library} dummy", f"{library} envpool"
    plain = tuple((num_envs, False, dummy) for num_envs in (1, 16, 20))
    saved_up = tuple((num_envs, True, option) for option in (dummy, envpool) for num_envs in (16, 64, 160))
    return plain + saved_up


def _sb3_atari_choices(library: str) -> tuple[tuple[int, bool, str], ...]:
    dummy, envpool = f"{library} dummy", f"{library} envpool"
    return ((1, False, dummy), (4, False, dummy), (16, False, dummy), (4, False, envpool), (16, False, envpool))


IMPLEMENTATIONS = (
    Implementation(
        OURS,
        "",
        tuple((num_envs, False, option) for option in ("auto", "envpool") for num_envs in (16, 64, 160, 320)),
        tuple((num_envs, False, option) for option in ("auto", "envpool") for num_envs in (8, 16, 64)),
    ),
    Implementation(
        f"{OURS}, TensorFlow",
        "",
        tuple(
            (num_envs, False, f"{option} tensorflow") for option in ("auto", "envpool") for num_envs in (64, 160, 320)
        ),
        tuple((num_envs, False, f"{option} tensorflow") for option in ("auto", "envpool") for num_envs in (8, 16, 64)),
    ),
    Implementation("Stable-Baselines3", "peers.sb3", _sb3_choices("sb3"), _sb3_atari_choices("sb3")),
    Implementation("SBX", "peers.sb3", _sb3_choices("sbx"), _sb3_atari_choices("sbx")),
    Implementation(
        "Tianshou",
        "peers.tianshou",
        ((20, False, "dummy"), (16, True, "dummy"), (20, False, "envpool"), (64, True, "envpool")),
        ((4, False, "envpool"), (16, False, "envpool")),
    ),
    Implementation(
        "TorchRL",
        "peers.torchrl",
        ((16, True, "eager"), (64, True, "eager"), (16, True, "compiled"), (64, True, "compiled")),
        ((4, False, "eager"), (4, False, "compiled")),
    ),
    Implementation(
        "RLlib",
        "peers.rllib",
        ((1, False, "sync"), (4, True, "sync"), (16, True, "sync"), (16, True, "native")),
        ((1, False, "sync"), (4, True, "sync")),
    ),
    Implementation(
        "skrl",
        "peers.skrl",
        ((20, False, "native"), (64, True, "native"), (20, False, "sync"), (64, True, "sync")),
        (),
        _skrl_misses,
    ),
    Implementation("CleanRL", "peers.cleanrl", ((1, False, "dqn"),), (), _cleanrl_misses),
    Implementation("CleanRL JAX", "peers.cleanrl", ((1, False, "dqn_jax"),), (), _cleanrl_misses),
    Implementation("rejax", "peers.rejax", ((20, False, ""), (160, False, ""), (320, False, "")), (), _rejax_misses),
)
