"""Trains many short jobs, one after another in the same ranks.

    combinations.py OUT.json JOBS.json RUNS_DIR

JOBS.json is a list of flat configurations. Rank 0 writes OUT.json: for each job its learner and learner steps, or why
it was refused.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import train
from hvd_dqn.config import Config, replace
from hvd_dqn.distributed.launcher import read_launch
from hvd_dqn.distributed.runtime import prepare_environment, start
from hvd_dqn.errors import UserError
from hvd_dqn.run.stopping import StopRequest


def main() -> None:
    """Runs on every rank."""
    launch = read_launch()
    runtime = start(launch, prepare_environment(launch, 0, 60.0), "cpu", timeline=False)
    from hvd_dqn.training.job import Job
    from hvd_dqn.training.run import run_job

    results: list[Any] = []

    def watched(job: Job) -> bool:
        done = train.train(job)
        results.append([job.learning.chosen, job.counters.learner_steps])
        return done

    for number, flat in enumerate(json.loads(Path(sys.argv[2]).read_text())):
        config = replace(Config(), flat | {"name": f"{number}", "runs_dir": sys.argv[3]})
        try:
            assert run_job(config, runtime, StopRequest(), [train.__file__], watched) == 0
        except UserError as error:
            results.append(["refused", str(error)])
    every = runtime.communicator.gather_json(results)
    assert all(other == every[0] for other in every)
    if launch.rank == 0:
        Path(sys.argv[1]).write_text(json.dumps(results))
    runtime.communicator.barrier()
    runtime.communicator.shutdown()


if __name__ == "__main__":
    main()
