"""Laws of hvd-dqn train --seeds: one run after the other, none twice, and a request to stop ends all."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hvd_dqn.cli import seeds
from hvd_dqn.cli.seeds import parse_seeds
from hvd_dqn.errors import UserError

from .whole_runs import QUICK

COMMAND = Path(sys.executable).with_name("hvd-dqn")


@pytest.mark.parametrize(
    ("text", "found"), [("0-2", [0, 1, 2]), ("3", [3]), ("0,3,7", [0, 3, 7]), ("5-6,1,5", [5, 6, 1]), ("4-4", [4])]
)
def test_seeds_and_ranges_are_read_in_their_order(text: str, found: list[int]) -> None:
    assert parse_seeds(text) == found


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "such as 0-4"),
        ("1..4", "such as 0-4"),
        ("-1", "such as"),
        ("4-0", "smaller seed first"),
        ("0-5000", "at most"),
        ("0-" + 99 * "9", "such as"),
    ],
)
def test_other_texts_are_refused(text: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        parse_seeds(text)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--seeds",), "give seeds and ranges"),
        (("--seeds", "0-1"), "add --name NAME"),
        (("--seeds=0-1", "--name", "a", "--seed", "3"), "leave --seed out"),
        (("--seeds", "0-1", "--name", "a", "--resume=auto"), "leave --resume out"),
        (("--seeds", "0-1", "--name", "a", "--checkpoint-path", "s3://b/c"), "leave --checkpoint-path out"),
        (("--seeds", "0-1", "--name", "a", "--gamma", "2"), "--gamma is 2.0"),
    ],
)
def test_mistakes_are_refused_before_the_first_run(
    arguments: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert seeds.main(arguments) == 2
    assert words in capsys.readouterr().err


def test_under_a_launcher_it_is_refused_with_the_loop_that_helps(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in (("HOROVOD_RANK", "0"), ("HOROVOD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    assert seeds.main(["--seeds", "0-1", "--name", "a"]) == 2
    assert "horovodrun -np 4 hvd-dqn train --seed $seed" in capsys.readouterr().err


PROGRAM = """
import json, pathlib, sys
given = dict(zip(sys.argv[1::2], sys.argv[2::2]))
place = pathlib.Path(given["--runs-dir"], "CartPole-v1", given["--name"])
place.mkdir(parents=True, exist_ok=True)
with open(place.parent / "calls", "a") as calls:
    calls.write(json.dumps(sys.argv[1:]) + "\\n")
if given["--seed"] == CODES_SEED:
    sys.exit(75)
(place / "metrics.jsonl").write_text(json.dumps({"kind": "final_evaluation", "env_steps": 50_000}) + "\\n")
"""


def _calls(folder: Path) -> list[list[str]]:
    return [json.loads(line) for line in (folder / "CartPole-v1" / "calls").read_text().splitlines()]


def test_each_seed_is_a_process_with_a_name_and_finished_ones_are_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Seed 1 is stopped at first: the command ends with its code, and its next call continues there."""
    script = tmp_path / "train.py"
    monkeypatch.setattr(seeds, "program", lambda: script)
    arguments = ["--runs-dir", str(tmp_path), "--name", "a", "--seeds", "0-2"]
    script.write_text(PROGRAM.replace("CODES_SEED", "'1'"))
    assert seeds.main(arguments) == 75
    assert "seed 1 ended with code 75: the same command continues there" in capsys.readouterr().err
    script.write_text(PROGRAM.replace("CODES_SEED", "None"))
    assert seeds.main(arguments) == 0
    assert "seed 0 (1 of 3) is finished" in capsys.readouterr().out
    assert [call[call.index("--seed") + 1] for call in _calls(tmp_path)] == ["0", "1", "1", "2"]
    assert all(call[-2:] == ["--resume", "auto"] for call in _calls(tmp_path))
    assert _calls(tmp_path)[0][call_of_name(_calls(tmp_path)[0]) + 1] == "a-seed0"
    assert seeds.main([*arguments, "--total-env-steps", "60000"]) == 0, "a longer run is not finished"
    assert len(_calls(tmp_path)) == 7


def call_of_name(call: list[str]) -> int:
    """Returns where the last --name of a call is, which is the one that counts."""
    return len(call) - 1 - call[::-1].index("--name")


@pytest.mark.slow
def test_ctrl_c_saves_the_run_and_ends_all_and_the_next_call_finishes_them(tmp_path: Path) -> None:
    """With real runs. The signal goes to the whole process group, as a terminal sends it."""
    command = [str(COMMAND), "train", "--seeds", "0-1", "--name", "a", "--runs-dir", str(tmp_path), *QUICK]
    started = subprocess.Popen(
        [*command, "--total-env-steps", "100000000"], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    metrics = tmp_path / "CartPole-v1" / "a-seed0" / "metrics.jsonl"
    while not (metrics.exists() and metrics.read_text()):
        assert started.poll() is None
        time.sleep(0.1)
    os.killpg(started.pid, signal.SIGINT)
    assert started.wait(300.0) == 75
    assert list(metrics.parent.glob("checkpoints/*/manifest.json"))
    assert not (tmp_path / "CartPole-v1" / "a-seed1").exists()
    reached = max(int(path.parent.name) for path in metrics.parent.glob("checkpoints/*/manifest.json"))
    finish = [*command, "--total-env-steps", str(reached + 50)]
    for times in (1, 2):
        done = subprocess.run(finish, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("is finished") == 2 * (times - 1)
    for seed in (0, 1):
        config = json.loads((tmp_path / "CartPole-v1" / f"a-seed{seed}" / "config.json").read_text())["config"]
        assert config["seed"] == seed
