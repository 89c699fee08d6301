"""What the native learner cannot run is refused with what can."""

from __future__ import annotations

from pathlib import Path

import pytest

from . import masked_environments  # noqa: F401  registers Gated-v0
from .whole_runs import QUICK, run


@pytest.mark.parametrize(
    ("flags", "obstacle"),
    [
        (("--replay", "prioritized"), "it has no prioritized replay"),
        (("--env", "Gated-v0"), "it has no action masks"),
    ],
)
def test_a_job_of_another_kind_is_refused(flags: tuple[str, ...], obstacle: str, tmp_path: Path) -> None:
    refused = run(*QUICK, "--learner", "native", *flags, "--runs-dir", tmp_path, "--total-env-steps", "50")
    assert refused.code == 2
    assert f"{obstacle}. Give --learner tensorflow" in refused.printed
