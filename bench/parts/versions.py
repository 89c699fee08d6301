"""This checkout, and another one that is measured with it."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from parts.jobs import BIN, ROOT


@dataclass(frozen=True)
class Version:
    """A checkout that was set up by `make setup`."""

    name: str
    checkout: Path
    flags: dict[str, list[str]]
    """What asks its train.py for each learner."""
    plain: str = "dqn"
    """Its preset of plain DQN on CartPole."""

    @property
    def programs(self) -> Path:
        """Returns the folder of its launchers."""
        return BIN if self.checkout == ROOT else self.checkout / ".venv" / "bin"


THIS = Version("now", ROOT, {name: ["--learner", name] for name in ("native", "tensorflow")})


def add_version_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options that name the other version."""
    parser.add_argument("--other", type=lambda text: Path(text).resolve(), help="another checkout with its .venv")
    parser.add_argument("--other-name", default="before", help="its name in the results")
    parser.add_argument("--other-plain", default="dqn", help="its preset of plain DQN (cartpole in 0.1.0)")
    parser.add_argument("--other-native", default="--learner=native", help="its flags for the native learner")
    parser.add_argument("--other-tensorflow", default="--learner=tensorflow", help="its flags for TensorFlow's")


def other_version(arguments: argparse.Namespace) -> list[Version]:
    """Returns the other version, if one was named."""
    if arguments.other is None:
        return []
    flags = {"native": arguments.other_native.split(), "tensorflow": arguments.other_tensorflow.split()}
    return [Version(arguments.other_name, arguments.other, flags, arguments.other_plain)]
