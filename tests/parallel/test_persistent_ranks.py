"""The tests' own ranks: a program that goes wrong on them fails alone, and leaves nothing to the next."""

from __future__ import annotations

from pathlib import Path

import pytest
from persistent_ranks import PersistentRanks

pytestmark = pytest.mark.parallel

LOOK = """
import os, signal, sys
print("environment", os.environ.get("OF_THE_FIRST"))
print("handler", signal.getsignal(signal.SIGTERM) == signal.SIG_DFL)
os.environ["OF_THE_FIRST"] = "set"
signal.signal(signal.SIGTERM, signal.SIG_IGN)
sys.exit(int(sys.argv[1]))
"""


def test_a_program_that_kills_its_rank_fails_alone_and_the_next_finds_no_trace_of_another(tmp_path: Path) -> None:
    look, die = tmp_path / "look.py", tmp_path / "die.py"
    look.write_text(LOOK)
    die.write_text("import os\nprint('last words', flush=True)\nos._exit(7)\n")
    untouched = "environment None\nhandler True\n"
    with PersistentRanks() as ranks:
        for code in (0, 3):
            outcome = ranks.run(1, str(code), program=look)
            assert (outcome.code, outcome.output) == (code, untouched)
        with pytest.raises(AssertionError, match="last words"):
            ranks.run(1, program=die)
        assert ranks.run_well(1, "0", program=look).output == untouched
