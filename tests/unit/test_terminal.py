"""Laws of the standard streams: losing one ends no program."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

_PROGRAM = """
import os, sys
from hvd_dqn.run.progress import make_display
from hvd_dqn.run.terminal import keep_standard_streams
keep_standard_streams()
opened = open(os.devnull)
assert opened.fileno() > 2, "a file has taken the number of a standard stream"
display = make_display(KIND, 100)
for number in range(20):
    display.message(f"line {number} " + 9000 * "x")
    print(f"complaint {number}", file=sys.stderr)
os.system("echo a child prints, too")
display.close()
open(sys.argv[1], "w").write("done")
sys.exit(7)
"""


def _shell(line: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Runs a line of bash that exits with the first command's code."""
    command = ["bash", "-c", f"{line}; exit ${{PIPESTATUS[0]}}", "bash", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("kind", ["plain", "live", "off"])
@pytest.mark.parametrize("where", [">/dev/full", ">&-", "| head -n 3", "2>&-", "2>/dev/full", ">/dev/full 2>&1"])
def test_a_program_whose_output_is_lost_goes_on_to_its_end(kind: str, where: str, tmp_path: Path) -> None:
    done = _shell(f'"$1" -c "$2" "$3" {where}', sys.executable, _PROGRAM.replace("KIND", repr(kind)), tmp_path / "end")
    assert done.returncode == 7, done.stderr
    assert (tmp_path / "end").read_text() == "done"
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    warned = where in (">/dev/full", "| head -n 3")
    assert done.stderr.count("the progress display ends") == int(warned), done.stderr[-2000:]
    assert done.stderr.count("training continues") == int(warned)


def test_text_that_a_full_pipe_cannot_take_is_lost_and_the_rest_is_not(tmp_path: Path) -> None:
    program = """
import os, sys, time
from hvd_dqn.run.terminal import keep_standard_streams
keep_standard_streams()
os.set_blocking(1, False)
for _ in range(100):
    print("x" * 10000, flush=True)
time.sleep(1.0)
print("the end", flush=True)
"""
    done = _shell('"$1" -c "$2" | { sleep 1; cat; }', sys.executable, program)
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip().endswith("the end")
    assert done.stderr == ""


@pytest.mark.parametrize("program", ["train.py", "-m hvd_dqn.cli.slurm_submit .", "-m hvd_dqn.cli.flags"])
def test_help_that_is_cut_off_ends_quietly(program: str) -> None:
    done = _shell(f'"$1" {program} --help | head -n 1', sys.executable)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("\n") == 1
