"""Laws of the settings and machines that a page lists."""

from __future__ import annotations

import json
import re
from pathlib import Path

from hvd_dqn.report.groups import grouped
from hvd_dqn.report.reading import read_run
from hvd_dqn.report.settings import machines, settings

from .report_runs import DEFAULTS, PRESET_LIST, whole_run


def _page(*folders: Path) -> tuple[str, str]:
    """Returns the settings and the machines of runs."""
    runs = [read_run(str(folder), DEFAULTS) for folder in folders]
    groups = grouped(runs, PRESET_LIST)
    return settings(groups), machines(groups)


def _shown(listed: str) -> str:
    """Returns what is not folded."""
    return listed.partition("<details>")[0]


def test_what_differs_from_the_preset_is_shown_and_the_rest_folded(tmp_path: Path) -> None:
    listed, _ = _page(whole_run(tmp_path / "a", 1.0, gamma=0.5))
    assert "<code>--gamma</code>" in _shown(listed)
    assert "<code>0.5</code>" in _shown(listed)
    assert "0.99" in _shown(listed)
    assert "--train-period" not in _shown(listed)
    assert "--train-period" in listed


def test_a_run_with_the_settings_of_its_preset_says_so(tmp_path: Path) -> None:
    """Its learner was chosen by auto, and is no difference."""
    listed, _ = _page(whole_run(tmp_path / "a", 1.0, learner="tensorflow"))
    assert "As preset cartpole." in _shown(listed)


def test_groups_show_what_differs_between_them(tmp_path: Path) -> None:
    runs = [whole_run(tmp_path / f"{ranks}", 1.0, ranks=ranks, gamma=0.5) for ranks in (1, 4)]
    listed, _ = _page(*runs)
    assert re.findall(r"<tr><th[^>]*><code>(.*?)</code>", listed) == ["--gamma", "ranks"]


def test_machines_are_listed_once_and_what_differs_by_run(tmp_path: Path) -> None:
    first, second = whole_run(tmp_path / "a", 1.0), whole_run(tmp_path / "b", 1.0, seed=1)
    same = _shown(_page(first, second)[1])
    assert same.count("3.11") == 1
    assert "What differs between the runs" not in same
    config = second / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"git_revision": "def"}))
    apart = _shown(_page(first, second)[1])
    assert "What differs between the runs" in apart
    assert "<td>abc</td>" in apart
    assert "<td>def</td>" in apart
    assert apart.count("3.11") == 1
