"""hvd-dqn export: writes a trained agent's network in another program's format."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from hvd_dqn.cli.arguments import parse
from hvd_dqn.cli.evaluate import OfAgent, place_and_checkpoint
from hvd_dqn.cli.parsing import parse_dataclass
from hvd_dqn.cli.ranks import refuse, require_one_process, run_to_exit
from hvd_dqn.config import replace
from hvd_dqn.distributed.launcher import Launch, read_launch
from hvd_dqn.distributed.runtime import prepare_environment, start
from hvd_dqn.errors import EXIT_DONE, UserError
from hvd_dqn.export.formats import check_installed
from hvd_dqn.run.directory import read_config_of
from hvd_dqn.run.stopping import StopRequest

if TYPE_CHECKING:
    from hvd_dqn.export.export import Written

PROGRAM = "hvd-dqn export"
DESCRIPTION = """Writes a trained agent's network into a folder: the model, and a model.json that says what it is.

  hvd-dqn export runs/CartPole-v1/first --format onnx                       its best checkpoint, for onnxruntime
  hvd-dqn export runs/CartPole-v1/first --format keras --checkpoint last    the newest one, for Keras
  hvd-dqn export s3://bucket/run --format saved-model --output pong         for TensorFlow, into the folder pong/
  hvd-dqn export runs/CartPole-v1/first --format safetensors --force        for NumPy; replaces an earlier export

The model takes observations as the environment gives them, and returns action values. What was written is read again
by its own runtime and compared with the agent. The network computes in float32."""


@dataclass(frozen=True, kw_only=True)
class Place(OfAgent):
    """What to export, and where to."""

    output: str = ""
    """Folder to write. Empty: one in export/ of the run directory, named by what it holds and its env steps."""
    force: bool = False
    """Replace an export that is there."""


@dataclass(frozen=True, kw_only=True)
class Asked(Place):
    """What is asked for."""

    format: Literal["keras", "saved-model", "onnx", "safetensors"] = "keras"
    """keras: for keras.models.load_model. saved-model: for tf.saved_model.load. onnx: for onnxruntime (extra [onnx]).
    safetensors: weights by layer, and a program in NumPy."""


def main(arguments: Sequence[str]) -> int:
    """Exports and returns the exit code."""

    def read() -> tuple[Place, str]:
        asked = parse_dataclass(Asked, arguments, PROGRAM, DESCRIPTION)
        return asked, asked.format

    def report(written: Written) -> str:
        from hvd_dqn.export.export import report

        return report(written)

    return export_to_exit(PROGRAM, read, report)


def export_to_exit(
    program: str, read: Callable[[], tuple[Place, str]], report: Callable[[Written], str], *, serve: bool = False
) -> int:
    """Exports in this process and returns the exit code.

    Args:
      program: its name, for messages.
      read: returns what is asked for, and the name of the format.
      report: returns what to print about what was written.
      serve: whether to write the program that serves it, too.
    """
    launch = read_launch()
    try:
        require_one_process(launch, "an export is made")
        asked, name = read()
        check_installed(name)
        run, which = place_and_checkpoint(os.path.expanduser(asked.run), asked.checkpoint)
        config = parse(["--resume", run, "--device", "cpu"], lambda run: read_config_of(run, ""), quiet=False)
        config = replace(config, {"precision": "float32"})
    except UserError as error:
        return refuse(program, error, launch, StopRequest())
    own = config.runtime
    threads = prepare_environment(Launch(), own.threads_per_rank, own.stall_timeout_seconds, own.bind_to_cores)
    communicator = start(Launch(), threads, own.device, timeline=False).communicator

    def work() -> int:
        from hvd_dqn.export.export import export  # NumPy and TensorFlow: after the thread pools' sizes are set
        from hvd_dqn.training.trained import load_trained

        trained = load_trained(run, config, which, communicator)
        for line in trained.passed_over:
            print(f"warning: {line}", file=sys.stderr, flush=True)
        output = os.path.expanduser(asked.output)
        print(report(export(trained, run, name, output, force=asked.force, serve=serve)), flush=True)
        return EXIT_DONE

    return run_to_exit(program, communicator, work)
