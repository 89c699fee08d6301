"""The console command hvd-dqn: one verb per thing to do."""

from __future__ import annotations

import importlib
import runpy
import sys
from pathlib import Path
from typing import Any

from hvd_dqn.errors import EXIT_USER_ERROR, did_you_mean
from hvd_dqn.run.terminal import keep_standard_streams
from hvd_dqn.version import __version__

VERBS = {
    "train": "train an agent, or resume a run, as `python train.py` does; with --seeds 0-4 one run per seed",
    "evaluate": "play episodes of a trained agent",
    "watch": "film a trained agent, with its action values",
    "report": "write a page on runs: learning curves, action values, speed, settings",
    "compare": "compare runs by interquartile mean and probability of improvement",
    "export": "write a trained agent's network for other programs: Keras, TensorFlow, onnxruntime, NumPy",
    "serve-example": "write a FastAPI program that serves a trained agent over HTTP",
    "presets": "list the presets, or show one as a configuration file",
    "doctor": "examine hosts, libraries and the network, and say what to change",
    "completion": "print a script that completes this command in bash or zsh",
}
"""What each does. `train` runs train.py; any other verb is a module of hvd_dqn/cli/ with a function `main`."""


def program() -> Path:
    """Returns the path of train.py: inside the package in a wheel, next to the package in a checkout."""
    package = Path(__file__).resolve().parents[1]
    return next(path for path in (package / "train.py", package.parent / "train.py") if path.is_file())


def load(verb: str) -> Any:
    """Returns the module of a verb other than train."""
    return importlib.import_module(f"hvd_dqn.cli.{verb.replace('-', '_')}")


def main() -> None:
    """Runs the verb; ends the process with its exit code."""
    verb, arguments = next(iter(sys.argv[1:]), "--help"), sys.argv[2:]
    if verb == "train" and not any(argument.partition("=")[0] == "--seeds" for argument in arguments):
        sys.argv = [str(program()), *arguments]
        runpy.run_path(sys.argv[0], run_name="__main__")
        return
    keep_standard_streams()
    if verb in VERBS:
        sys.exit(load("seeds" if verb == "train" else verb).main(arguments))
    if verb == "--version":
        print(f"hvd-dqn {__version__}")
    elif verb in ("--help", "-h"):
        print(_usage())
    else:
        print(f"hvd-dqn: no verb {verb!r}{did_you_mean(verb, VERBS)}\n{_usage()}", file=sys.stderr)
        sys.exit(EXIT_USER_ERROR)


def _usage() -> str:
    width = max(map(len, VERBS))
    lines = [f"  {name:<{width}}  {about}" for name, about in VERBS.items()]
    return "\n".join(["usage: hvd-dqn VERB ...", "", *lines, "", "`hvd-dqn VERB --help` shows its flags."])
