"""hvd-dqn serve-example: writes a program that serves a trained agent over HTTP, and the model that it needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hvd_dqn.cli.export import Place, export_to_exit
from hvd_dqn.cli.parsing import parse_dataclass

if TYPE_CHECKING:
    from hvd_dqn.export.export import Written

PROGRAM = "hvd-dqn serve-example"
DESCRIPTION = """Writes a folder with serve.py, a FastAPI program of about 40 lines, and the model.onnx that it serves.

  hvd-dqn serve-example runs/CartPole-v1/first                      into export/serve-<env steps> of the run
  hvd-dqn serve-example runs/CartPole-v1/first --output cartpole    into the folder cartpole/
  uvicorn --app-dir cartpole serve:app --port 8000                  starts it

POST /act {"observation": [...]} answers {"action": ..., "action_values": [...]}. The folder needs fastapi, uvicorn,
onnxruntime and numpy, and nothing of this package: it may be copied to another machine."""


def main(arguments: Sequence[str]) -> int:
    """Writes the folder and returns the exit code."""

    def read() -> tuple[Place, str]:
        return parse_dataclass(Place, arguments, PROGRAM, DESCRIPTION), "onnx"

    def report(written: Written) -> str:
        from hvd_dqn.export.export import report_server

        return report_server(written)

    return export_to_exit(PROGRAM, read, report, serve=True)
