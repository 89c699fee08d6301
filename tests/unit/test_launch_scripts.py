"""Laws of the launch scripts' options that need no second host; the others are in tests/launch/."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

LAUNCH = Path(__file__).resolve().parents[2] / "launch"


@pytest.mark.parametrize("script", ["local.sh -np 1", "hosts.sh -H node1:1", "elastic.sh --hosts {hosts}"])
@pytest.mark.parametrize(
    ("name", "words"),
    [("A=b", "-x A=b: give a variable's name"), ("NOT_SET_HERE", "-x NOT_SET_HERE: no such environment variable")],
)
def test_a_variable_that_cannot_be_handed_on_is_refused(script: str, name: str, words: str, tmp_path: Path) -> None:
    """A misspelt name would be missed on the ranks only, or not at all."""
    hosts = tmp_path / "hosts"
    hosts.write_text("localhost:1\n")
    script, *options = script.format(hosts=hosts).split()
    command = [str(LAUNCH / script), *options, "-x", name]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2, done.stderr
    assert f"launch/{script}: {words}" in done.stderr
