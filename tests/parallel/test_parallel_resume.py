"""A resume that is refused leaves the run as it was."""

from __future__ import annotations

from pathlib import Path

import pytest
from launching import run, run_well

pytestmark = pytest.mark.parallel

SHORT = (
    *("--total-env-steps", "1600", "--learning-starts", "200", "--evaluation-period", "0"),
    *("--final-evaluation-episodes", "2", "--name", "short"),
)
REFUSED = {
    "another network": (("--hidden-sizes", "32", "--total-env-steps", "3200"), "another configuration"),
    "another optimizer": (("--optimizer", "rmsprop", "--total-env-steps", "3200"), "another configuration"),
    "nothing left to do": (("--total-env-steps", "800"), "raise --total-env-steps"),
}


def test_a_refused_resume_changes_nothing(tmp_path: Path) -> None:
    """The right command still works after the wrong ones."""
    run_well("python", 1, *SHORT, "--runs-dir", tmp_path)
    run_directory = tmp_path / "CartPole-v1" / "short"
    kept = [run_directory / "config.json", run_directory / "metrics.jsonl"]
    before = [path.read_bytes() for path in kept]
    for name, (options, says) in REFUSED.items():
        outcome = run("python", 1, "--resume", run_directory, *options)
        assert outcome.code == 2, outcome.output
        assert says in outcome.output, outcome.output
        assert [path.read_bytes() for path in kept] == before, name
    run_well("python", 1, "--resume", run_directory, "--total-env-steps", "2400")
    assert kept[0].read_bytes() != before[0]
