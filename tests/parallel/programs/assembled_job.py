"""Assembles the real job, trains it, and damages one rank on purpose to see who notices.

    assembled_job.py OUT.json RUNS_DIR

Rank 0 writes OUT.json: what the ranks said at each stage, one entry per rank.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from hvd_dqn.config import Config, replace
from hvd_dqn.distributed.launcher import read_launch
from hvd_dqn.distributed.runtime import prepare_environment, start
from hvd_dqn.errors import UserError
from hvd_dqn.learner.learner import state_of
from hvd_dqn.run.stopping import StopRequest

CONFIG = {
    "total_env_steps": 960,
    "num_envs": 6,
    "learning_starts": 240,
    "train_period": 6,
    "global_batch_size": 32,
    "hidden_sizes": (16,),
    "target_update_period": 40,
    "log_period": 480,
    "evaluation_period": 0,
    "progress": "off",
    "seed": 3,
    "learner": "tensorflow",
}
EPISODES = 13


def main() -> None:  # noqa: PLR0915 - one scene after the other, read from top to bottom
    """Runs on every rank."""
    launch = read_launch()
    runtime = start(launch, prepare_environment(launch, 1, 60.0), "cpu", timeline=False)

    import numpy as np
    import tensorflow as tf

    import train
    from hvd_dqn.distributed.agreement import check_same_job, check_same_weights
    from hvd_dqn.training.assembly import assemble
    from hvd_dqn.training.hooks import Log
    from hvd_dqn.training.job import Job
    from hvd_dqn.training.resume import restore
    from hvd_dqn.training.run import close_job

    communicator = runtime.communicator
    victim = communicator.size - 1
    config = replace(Config(), CONFIG | {"runs_dir": sys.argv[2]})
    job: Job = assemble(config, runtime, StopRequest(), [train.__file__])
    learner = job.learning.learner
    said: dict[str, Any] = {"ranks": communicator.size}

    def vectors() -> list[np.ndarray]:
        """Returns copies of online, target and slots."""
        return [np.array(vector) for vector in (learner.online, learner.target, *learner.slots)]

    def spoil(*places: int) -> None:
        """Changes one number of some of `vectors` in its last bit but seven, on the victim."""
        changed = vectors()
        for place in places:
            changed[place][7] += 1e-5 if communicator.rank == victim else 0.0
        learner.load(changed[0], changed[1], changed[2:])

    def digest(*arrays: np.ndarray) -> str:
        return hashlib.sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)).hexdigest()

    def verdict() -> str:
        """Returns what this rank is told about the weights, "" if they are the same everywhere."""
        try:
            check_same_weights(communicator, state_of(learner).values())
        except UserError as error:
            return str(error)
        return ""

    def train_on(env_steps: int) -> None:
        job.config = replace(job.config, {"total_env_steps": job.counters.env_steps + env_steps})
        assert train.train(job)

    def digests() -> list[dict[str, str]]:
        return communicator.gather_json({name: digest(vector) for name, vector in state_of(learner).items()})

    # The start: rank 0's state becomes everyone's.
    spoil(*range(len(vectors())))
    said["before_the_broadcast"] = communicator.gather_json(verdict())
    restore(job)
    said["after_the_broadcast"] = digests()

    # Evaluation, with weights that do not depend on the number of ranks.
    weights = tf.constant(np.random.default_rng(0).normal(size=learner.layout.total), tf.float32)
    played = job.evaluation.evaluate(weights, "evaluation", 0, EPISODES)
    assert played is not None
    said["returns"] = communicator.gather_json(played.returns.tolist())
    said["values"] = communicator.gather_json([played.start_values.tolist(), played.discounted_returns.tolist()])

    # Training.
    train_on(960)
    said["counters"] = communicator.gather_json(dataclasses.asdict(job.counters))
    said["after_training"] = digests()
    stored = job.learning.replay.contents()
    # CartPole ends by termination here.
    said["episodes_stored"] = communicator.gather_json(int((stored.discount_t == 0).sum()))
    said["transitions"] = communicator.gather_json(
        [digest(column) for column in (stored.s_tm1, stored.a_tm1, stored.s_t)]
    )
    said["first_observations"] = communicator.gather_json(stored.s_tm1[: job.acting.collector.num_envs].tolist())

    # Damage, and who names it.
    sound = vectors()
    for place, name in enumerate(("online", "target", "slots")):
        spoil(place)
        said[f"{name}_spoilt"] = communicator.gather_json(verdict())
        learner.load(sound[0], sound[1], sound[2:])
    said["all_restored"] = communicator.gather_json(verdict())

    # A damaged target is repaired by the next target sync, not earlier. No log line is due in between.
    job.hooks = [hook for hook in job.hooks if not isinstance(hook, Log)]
    updates = job.counters.target_updates
    spoil(1)
    said["target_spoilt_again"] = digests()
    train_on(6 * CONFIG["target_update_period"])  # type: ignore[operator]
    said["target_updates_meanwhile"] = job.counters.target_updates - updates
    said["after_the_target_sync"] = digests()

    # Ranks that are not the same job.
    fingerprint = {"seed": 1, "code": "aaaa" if communicator.rank < victim else "bbbb"}
    try:
        check_same_job(communicator, fingerprint)
        said["other_code"] = communicator.gather_json("")
    except UserError as error:
        said["other_code"] = communicator.gather_json(str(error))
    check_same_job(communicator, {"seed": 1, "code": "aaaa"})

    if communicator.rank == 0:
        Path(sys.argv[1]).write_text(json.dumps(said))
    close_job(job)
    communicator.shutdown()


if __name__ == "__main__":
    main()
