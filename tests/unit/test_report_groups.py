"""Laws of groups of runs, their names, and the curves that are drawn of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hvd_dqn.report.charts import POINTS_OF_A_CHART, Chart, phase_times, sections
from hvd_dqn.report.curves import downsampled, mean_line, on_one_grid
from hvd_dqn.report.groups import Group, changed, grouped, preset_of
from hvd_dqn.report.reading import RunData, read_run
from hvd_dqn.statistics import bootstrap_band

from .report_runs import DEFAULTS, PRESET_LIST, evaluation, final, training, whole_run, write_run


def _run(folder: Path, score: float = 1.0, **config: Any) -> RunData:
    return read_run(str(whole_run(folder, score, **config)), DEFAULTS)


def _groups(*runs: RunData) -> list[Group]:
    return grouped(runs, PRESET_LIST)


def _chart(groups: list[Group], key: str) -> Chart:
    (found,) = (chart for charts in sections(groups).values() for chart in charts if chart.key == key)
    return found


def test_runs_that_differ_in_their_seed_alone_are_one_group(tmp_path: Path) -> None:
    """Names, folders, periods of logs and checkpoints are no difference."""
    first = _run(tmp_path / "a", seed=1, log_period=10, checkpoint_period=7)
    (group,) = _groups(first, _run(tmp_path / "b", seed=2, runs_dir="/other", progress="off"))
    assert [run.seed for run in group.runs] == [1, 2]
    assert group.name == "CartPole-v1"
    assert _groups(first)[0].name == "a"


def test_groups_are_named_by_what_differs_from_the_others_and_from_the_preset(tmp_path: Path) -> None:
    variants: list[dict[str, Any]] = [{}, {"double": True}, {"replay": "prioritized", "learner": "tensorflow"}]
    runs = [_run(tmp_path / f"{i}", **variant) for i, variant in enumerate(variants)]
    assert [group.name for group in _groups(*runs)] == ["preset cartpole", "--double", "--replay prioritized"]
    ranks = [_run(tmp_path / f"ranks{n}", ranks=n, gamma=0.5) for n in (1, 4)]
    assert [group.name for group in _groups(*ranks)] == ["preset cartpole, 1 rank", "preset cartpole, 4 ranks"]
    learners = [_run(tmp_path / name, learner=name) for name in ("native", "tensorflow")]
    assert [group.name for group in _groups(*learners)] == ["--learner native", "--learner tensorflow"]
    environments = [_run(tmp_path / env, env=env) for env in ("Acrobot-v1", "CartPole-v1")]
    assert [group.name for group in _groups(*environments)] == [
        "Acrobot-v1",
        "CartPole-v1",
    ]
    presets = [_run(tmp_path / name, algorithm=name, quantiles=8) for name in ("iqn", "munchausen-iqn")]
    for run in presets:
        run.about["command"] = ["train.py", "--preset", run.name]
    assert [group.name for group in _groups(*presets)] == ["preset iqn", "preset munchausen-iqn"]


def test_a_long_name_is_cut_and_stays_unique(tmp_path: Path) -> None:
    many = {"double": True, "dueling": True, "noisy": True}
    runs = [_run(tmp_path / f"{n}", **many, n_step=n) for n in (1, 2, 3)] + [_run(tmp_path / "plain")]
    names = [group.name for group in _groups(*runs)]
    assert names[1] == "--dueling, --noisy, --double, 1 more (2)"
    assert len(set(names)) == 4


def test_the_preset_is_the_commands_or_the_nearest(tmp_path: Path) -> None:
    run = _run(tmp_path / "a", gamma=0.5)
    assert preset_of(run, PRESET_LIST).name == "cartpole"
    assert changed(run, preset_of(run, PRESET_LIST)) == ["gamma"]
    run.about["command"] = ["train.py", "--preset=rainbow"]
    assert preset_of(run, PRESET_LIST).name == "rainbow"
    run.about["command"] = ["train.py", "--resume", "runs/a"]
    run.config.update(env="MountainCar-v0", hidden_sizes=[128, 128], double=True, train_period=2)
    assert preset_of(run, PRESET_LIST).name == "mountaincar"


def test_the_interval_is_one_over_seeds_and_that_of_episodes_for_a_single_run(tmp_path: Path) -> None:
    runs = [_run(tmp_path / f"{i}", score, seed=i) for i, score in enumerate((10.0, 20.0, 30.0))]
    (group,) = _groups(*runs)
    found = group.summary("final")
    assert found is not None
    assert (found["mean_return"], found["runs"]) == (20.0, 3)
    assert 10.0 <= found["low"] < 20.0 < found["high"] <= 30.0
    alone = _groups(runs[0])[0]
    assert alone.summary("final") == {"mean_return": 10.0, "runs": 1, "low": 9.0, "high": 11.0}
    partly = _groups(runs[0], read_run(str(write_run(tmp_path / "begun", [training(100)], seed=9)), DEFAULTS))[0]
    assert partly.summary("final") == {"mean_return": 10.0, "runs": 1, "low": 9.0, "high": 11.0}
    assert alone.summary("best") == {"mean_return": 10.0, "runs": 1, "low": None, "high": None}


def test_few_points_stay_and_many_become_means_of_equal_stretches() -> None:
    x, y = np.arange(10.0), np.array([0.0, 2.0] * 5)
    assert downsampled(x, y, 10)[1] is y
    few_x, few_y = downsampled(x, y, 5)
    assert few_x.tolist() == [0.5, 2.5, 4.5, 6.5, 8.5]
    assert few_y.tolist() == [1.0] * 5
    assert [len(part) for part in downsampled(np.arange(10_007.0), np.ones(10_007), 500)] == [500, 500]


def test_a_mean_ends_where_the_shortest_curve_does() -> None:
    x = np.arange(5.0)
    line = mean_line(0, "a", [(x, 2 * x), (x[:3], 4 * x[:3])], 500)
    assert line is not None
    assert line.x.tolist() == [0.0, 1.0, 2.0]
    assert line.y.tolist() == [0.0, 3.0, 6.0]
    assert len(line.seeds) == 2
    low, high = bootstrap_band(np.array([[0, 2, 4], [0, 4, 8]]))
    assert line.low is not None
    assert line.high is not None
    assert line.low.tolist() == low.tolist()
    assert line.high.tolist() == high.tolist()


def test_curves_at_other_points_are_interpolated() -> None:
    x, y = on_one_grid(
        [(np.array([0.0, 10.0, 20.0]), np.array([0.0, 10.0, 20.0])), (np.array([4.0, 16.0]), np.zeros(2))]
    )
    assert x.tolist() == [4.0, 16.0]
    assert y.tolist() == [[4.0, 16.0], [0.0, 0.0]]


def test_no_curve_gives_no_line_and_one_has_no_interval() -> None:
    none: tuple[np.ndarray, np.ndarray] = np.array([]), np.array([])
    assert mean_line(0, "a", [none], 10) is None
    line = mean_line(0, "a", [none, (np.arange(3.0), np.arange(3.0))], 10)
    assert line is not None
    assert line.low is None


def test_over_estimation_is_the_predicted_minus_the_realised_value(tmp_path: Path) -> None:
    """9 minus 7; of one group both are drawn."""
    one, other = _run(tmp_path / "a"), _run(tmp_path / "b", double=True)
    both = _chart(_groups(one), "estimate")
    assert [(line.second, line.y.tolist()) for line in both.lines] == [(False, [9.0, 9.0]), (True, [7.0, 7.0])]
    several = _chart(_groups(one, other), "estimate")
    assert [line.y.tolist() for line in several.lines] == [[2.0, 2.0], [2.0, 2.0]]


def test_evaluations_of_an_older_version_have_no_estimate(tmp_path: Path) -> None:
    record = evaluation(100, 1.0)
    del record["start_value"], record["discounted_return"]
    run = read_run(str(write_run(tmp_path / "a", [record])), DEFAULTS)
    assert list(sections(_groups(run))) == ["Learning"]
    later = read_run(str(write_run(tmp_path / "b", [record, evaluation(200, 1.0)], double=True)), DEFAULTS)
    assert _chart(_groups(run, later), "estimate").lines[0].y.tolist() == [2.0]


def test_skew_is_the_lead_of_the_fastest_rank_in_parts_of_an_iteration(tmp_path: Path) -> None:
    """The fastest waits 30 µs, the slowest 10, in an iteration of seven phases of 20."""
    alone, four = _run(tmp_path / "a"), _run(tmp_path / "b", ranks=4)
    (line,) = _chart(_groups(alone, four), "skew").lines
    assert line.group == 1
    assert line.y.tolist() == [pytest.approx(20 / 140)] * 2
    assert phase_times(_groups(four)[0])["allreduce"] == (10.0, 20.0, 30.0)  # type: ignore[index]
    assert "skew" not in [chart.key for chart in sections(_groups(alone)).get("Speed", [])]


def test_the_speed_of_a_rank_alone_is_of_its_share(tmp_path: Path) -> None:
    """Of 16 environments on four ranks, a rank steps 4 in 160 µs, or in 100."""
    four, two = _run(tmp_path / "b", ranks=4), _run(tmp_path / "c", ranks=2)
    both = _chart(_groups(four), "ranks")
    assert [(line.second, line.y[0]) for line in both.lines] == [(False, 4e6 / 160), (True, 4e6 / 100)]
    assert [line.y[0] for line in _chart(_groups(four, two), "ranks").lines] == [4e6 / 160, 8e6 / 160]
    assert "ranks" not in [chart.key for chart in sections(_groups(_run(tmp_path / "a"))).get("Speed", [])]


def test_priorities_are_drawn_where_there_are_any(tmp_path: Path) -> None:
    plain = [training(100), final(200, 1.0)]
    prioritised = [training(100) | {"mean_priority": 0.5, "largest_priority": 3.0}, final(200, 1.0)]
    runs = [
        read_run(str(write_run(tmp_path / name, records, replay=replay)), DEFAULTS)
        for name, records, replay in (("a", plain, "uniform"), ("b", prioritised, "prioritized"))
    ]
    assert "priorities" not in [chart.key for chart in sections(_groups(runs[0]))["Updates"]]
    assert [line.y.tolist() for line in _chart(_groups(runs[1]), "priorities").lines] == [[0.5], [3.0]]
    assert [line.y.tolist() for line in _chart(_groups(*runs), "priorities").lines] == [[0.5]]


@pytest.mark.parametrize("count", [1, 5])
def test_a_chart_has_few_enough_points(tmp_path: Path, count: int) -> None:
    records = [training(i) for i in range(1, 2000)] + [final(2000, 1.0)]
    runs = [read_run(str(write_run(tmp_path / f"{i}", records, n_step=i)), DEFAULTS) for i in range(1, count + 1)]
    lines = _chart(_groups(*runs), "loss").lines
    assert len(lines) == count
    assert max(len(line.x) for line in lines) <= 500
    assert sum(len(line.x) for line in lines) <= POINTS_OF_A_CHART
