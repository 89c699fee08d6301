"""Laws of hvd-dqn presets: every preset is described, and its file is the preset."""

from __future__ import annotations

import json
import re
import statistics
from pathlib import Path

import pytest

from hvd_dqn.cli import presets as verb
from hvd_dqn.cli.arguments import parse
from hvd_dqn.config import flatten
from hvd_dqn.presets import ABOUT, PRESETS

ROOT = Path(__file__).parents[2]
RESULTS = (ROOT / "docs" / "reference" / "learning-results.md").read_text()


@pytest.mark.parametrize("name", PRESETS)
def test_the_file_of_a_preset_is_the_preset(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Presets of Atari too, though a game of Atari without --preset has settings of its own."""
    assert verb.main([name]) == 0
    (tmp_path / "own.toml").write_text(capsys.readouterr().out)
    by_file, by_name = (
        parse(arguments, lambda run: {}, quiet=False)
        for arguments in (("--config", str(tmp_path / "own.toml")), ("--preset", name))
    )
    assert flatten(by_file) == flatten(by_name)
    assert capsys.readouterr().err == "", "nothing is taken from another preset"


def test_every_preset_is_in_the_table_with_its_source(capsys: pytest.CaptureFixture[str]) -> None:
    assert ABOUT.keys() == PRESETS.keys()
    assert verb.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1 : len(PRESETS) + 1]] == list(PRESETS)
    (lander,) = [line for line in lines if line.startswith("lunarlander ")]
    assert re.search(r"LunarLander-v3 +dqn +300,000 +237\.4 \(5 runs, .*\) +chosen by hand", lander)


def test_json_has_the_settings_of_one_or_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert verb.main(["--json"]) == 0
    every = json.loads(capsys.readouterr().out)
    assert verb.main(["maze", "--json"]) == 0
    one = json.loads(capsys.readouterr().out)
    assert [entry["name"] for entry in every] == list(PRESETS)
    assert one in every
    assert one["settings"] == PRESETS["maze"] | {"env": "hvd_dqn/TreasureMaze-v0"}


@pytest.mark.parametrize("name", [name for name, about in ABOUT.items() if " runs, " in about.measured])
def test_what_was_measured_is_what_the_results_page_has(name: str) -> None:
    rows = re.findall(rf"--preset {name} --seed \d+` \| (-?[\d.]+) \|", RESULTS)
    means = [float(mean) for mean in rows]
    shown = f"{statistics.mean(means):.1f} ({len(means)} runs, {min(means)} to {max(means)})"
    assert ABOUT[name].measured == shown


def test_what_cartpole_reaches_is_what_was_recorded() -> None:
    lines = (ROOT / "bench" / "results" / "learned.jsonl").read_text().splitlines()
    runs = [run for run in map(json.loads, lines) if run["task"] == "cartpole"]
    last = [run["evaluations"][-1][1] for run in runs]
    ranks = ", ".join(sorted({str(run["ranks"]) for run in runs}))
    assert ABOUT["cartpole"].measured == f"{statistics.mean(last):.1f} at the end ({len(runs)} runs on {ranks} ranks)"


def test_the_results_of_minatar_are_those_of_the_page() -> None:
    for game, best in re.findall(r"(\w+) ([\d.]+)", ABOUT["minatar-dqn"].measured.partition(" (")[0]):
        assert re.search(rf"\| {game}, `--preset minatar-dqn` \| 1 \|.*\| {best} \|", RESULTS)


def test_a_mistyped_name_is_refused_with_the_nearest_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert verb.main(["cartpool"]) == 2
    assert "no preset 'cartpool' (did you mean 'cartpole'?)" in capsys.readouterr().err
