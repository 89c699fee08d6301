"""The process that films for --record-period: python -m hvd_dqn.cli.record.

Standard input: a line of JSON (config, folder, env_steps, parent), then the parameters as float32. Standard output: a
line of JSON (path, return, steps), then a GIF.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from hvd_dqn.cli.arguments import parse
from hvd_dqn.distributed.launcher import Launch
from hvd_dqn.distributed.runtime import prepare_environment, start
from hvd_dqn.errors import EXIT_DONE, EXIT_FAILED, EXIT_USER_ERROR, UserError
from hvd_dqn.video.writer import draw_without_display

_LOWEST_PRIORITY = 19


def main() -> int:
    """Films one episode and returns the exit code."""
    os.nice(_LOWEST_PRIORITY)
    os.sched_setaffinity(0, range(os.cpu_count() or 1))  # not the cores of rank 0 alone; the job's limits stay
    answer = os.dup(1)
    os.dup2(2, 1)  # what an environment prints is no answer
    request, parameters = _read()
    config = parse(["--resume", request["folder"], "--device", "cpu"], lambda run: request["config"], quiet=True)
    draw_without_display()
    threads = prepare_environment(Launch(), 1, 0.0, bind_to_cores=False)
    runtime = start(Launch(), threads, "cpu", timeline=False)
    from hvd_dqn.training.recording import MOST_SECONDS
    from hvd_dqn.training.recording_process import record

    signal.alarm(MOST_SECONDS)
    try:
        found, gif = record(
            config,
            parameters,
            request["env_steps"],
            Path(request["folder"]),
            runtime.communicator,
            lambda: os.getppid() != request["parent"],
        )
    except UserError as error:
        print(error, file=sys.stderr)
        return EXIT_USER_ERROR
    if found is None:
        return EXIT_FAILED
    with open(answer, "wb") as file:
        file.write(json.dumps(found).encode() + b"\n" + gif)
    return EXIT_DONE


def _read() -> tuple[dict[str, Any], bytes]:
    """Returns the request and the bytes of the parameters."""
    line = sys.stdin.buffer.readline()
    return json.loads(line), sys.stdin.buffer.read()


if __name__ == "__main__":
    sys.exit(main())
