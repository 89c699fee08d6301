"""Laws of the registries: names without imports, mistakes with their remedy, fields by their names."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from hvd_dqn.algorithms.dqn import DQN
from hvd_dqn.config import Config, replace
from hvd_dqn.errors import UserError
from hvd_dqn.registry import ALGORITHMS, NETWORKS, REPLAYS, check_registered, load
from hvd_dqn.replay.ring import RingReplay
from hvd_dqn.training.parts import configured
from hvd_dqn.transition import TransitionForm
from hvd_dqn.validation import validate


@pytest.mark.parametrize("registry", [ALGORITHMS, NETWORKS, REPLAYS], ids=["algorithms", "networks", "replays"])
def test_every_registered_name_can_be_imported(registry: dict[str, str]) -> None:
    for name in registry:
        assert callable(load(registry, name))


@pytest.mark.parametrize(
    ("field", "name", "words"),
    [
        (
            "algorithm",
            "dqm",
            "--algorithm dqm is unknown (did you mean 'dqn'?): choose one of c51, decqn, dqn, hl-gauss, iqn, "
            "munchausen, munchausen-iqn, qr",
        ),
        ("network", "resnet", "--network resnet is unknown: choose one of auto, cnn, impala, minatar, mlp"),
        ("network", "mpl", "did you mean 'mlp'"),
        ("replay", "uniforn", "did you mean 'uniform'"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest_and_all_others(field: str, name: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        validate(replace(Config(), {field: name}))
    assert words in str(caught.value)


def test_a_name_that_a_program_registers_is_known_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ALGORITHMS, "mine", "hvd_dqn.algorithms.dqn:DQN")
    check_registered(ALGORITHMS, "mine", "--algorithm")
    validate(replace(Config(), {"algorithm": "mine"}))
    assert load(ALGORITHMS, "mine") is DQN


def test_reading_the_names_imports_nothing_heavy() -> None:
    program = "import sys, hvd_dqn.registry; print([n for n in ('numpy', 'tensorflow', 'keras') if n in sys.modules])"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_a_factory_gets_the_fields_that_its_parameters_name_and_no_others() -> None:
    config = replace(Config(), {"gamma": 0.5, "double": True})

    def factory(gamma: float, double: bool, size: int, preset: str = "own") -> tuple[float, bool, int, str]:
        return gamma, double, size, preset

    assert configured(factory, config, size=3, unnamed=4) == (0.5, True, 3, "own")
    assert configured(DQN, config).native_rule == "double_dqn"


def test_what_is_given_goes_before_the_configuration() -> None:
    """A rank's replay has its share of the capacity that all have together."""
    replay = configured(
        RingReplay,
        Config(),
        capacity=10,
        form=TransitionForm((4,), np.dtype(np.float32)),
        rng=np.random.default_rng(0),
    )
    assert replay.capacity == 10
    assert configured(lambda seed: seed, replace(Config(), {"seed": 5}), seed=6) == 6


def test_a_field_that_is_missing_is_named_by_python() -> None:
    with pytest.raises(TypeError, match="no_such_field"):
        configured(lambda no_such_field: no_such_field, Config())
