"""Laws of examples/trading/: no look ahead, costs, known optima, and statistics that agree with published numbers."""

from __future__ import annotations

import itertools
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hvd_dqn
from hvd_dqn.envs.find import import_place

from .whole_runs import run

FOLDER = Path(__file__).parents[2] / "examples" / "trading"
market, prices, series, sharpe, verdict, walk_forward, known = (
    import_place(str(FOLDER / f"{name}.py"), "this test", "")
    for name in ("market", "prices", "series", "sharpe", "verdict", "walk_forward", "known")
)
DAY = np.timedelta64(1, "D")


def _write(path: Path, bars: Any) -> str:
    """Writes bars as a price file and returns its name."""
    lines = [f"{t},{o!r},{c!r}" for t, o, c in zip(bars.times, bars.open.tolist(), bars.close.tolist(), strict=True)]
    path.write_text("\n".join(["Time,Open,Close", *lines]) + "\n")
    return str(path)


def _random_bars(count: int, seed: int = 0) -> Any:
    """Returns bars of every weekday with gaps between close and open."""
    rng = np.random.default_rng(seed)
    log_price = np.cumsum(rng.normal(0, 0.01, 2 * count)).reshape(count, 2)
    days = np.busday_offset("2020-01-02", np.arange(count), roll="forward").astype("datetime64[s]")
    return prices.Bars(days, np.exp(log_price[:, 0]), np.exp(log_price[:, 1]))


def _episode(env: Any, actions: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the observations [N + 1, D] and the rewards [N] of actions."""
    observations, rewards = [env.reset(seed=1)[0]], []
    for action in actions:
        observation, reward, *_ = env.step(np.int64(action))
        observations.append(observation)
        rewards.append(reward)
    return np.array(observations), np.array(rewards)


@pytest.mark.parametrize("leak", [False, True])
def test_prices_after_a_bar_change_nothing_before_it_unless_they_are_leaked(tmp_path: Path, leak: bool) -> None:
    """Observations up to close t and rewards up to close t are those of another future."""
    bars, now = _random_bars(120), 80
    other = _random_bars(120, seed=1)
    future = np.arange(120) > now
    changed = bars._replace(
        open=np.where(future, other.open, bars.open), close=np.where(future, other.close, bars.close)
    )
    actions = np.random.default_rng(2).integers(0, 3, now - 60 + 5).tolist()
    seen = []
    for name, own in (("one.csv", bars), ("other.csv", changed)):
        arguments = {"train": (32, 60), "window": (60, 119), "episode_bars": 0, "leak": leak}
        seen.append(_episode(market.Trading(_write(tmp_path / name, own), **arguments), actions))
    until = now - 60
    same_rewards = np.array_equal(seen[0][1][:until], seen[1][1][:until])
    same_observations = np.array_equal(seen[0][0][: until + 1], seen[1][0][: until + 1])
    assert same_rewards
    assert same_observations is not leak  # the test would find a leak
    assert not np.array_equal(seen[0][0][until + 1], seen[1][0][until + 1])
    assert seen[0][1][until] != seen[1][1][until]


def test_an_order_is_filled_at_the_next_open_and_costs_what_it_trades(tmp_path: Path) -> None:
    """Flat, long, short, short: by hand, from opens and closes."""
    bars = _random_bars(40)
    o, c = bars.open, bars.close
    env = market.Trading(
        _write(tmp_path / "p.csv", bars), window=(32, 36), episode_bars=0, fee=0.001, half_spread=0.002
    )
    observations, rewards = _episode(env, [1, 2, 0, 0])
    expected = [
        0.0,
        math.log(c[34] / o[34]) + math.log(1 - 0.003),
        math.log(o[35] / c[34]) + math.log(2 - c[35] / o[35]) + math.log(1 - 0.006),
        math.log(2 - o[36] / c[35]) + math.log(2 - c[36] / o[36]) + math.log(1 - 0.003),  # closed at the end
    ]
    np.testing.assert_allclose(rewards * env.reward_unit, expected, rtol=0, atol=1e-12)
    assert observations[:, -2].tolist() == [0, 0, 1, -1, -1]
    assert observations[:, -1].tolist() == [4 / 32, 3 / 32, 2 / 32, 1 / 32, 0]


def test_rewards_are_what_the_positions_earn(tmp_path: Path) -> None:
    """The environment and the arithmetic of whole sequences, which judges baselines, agree."""
    bars = _random_bars(100)
    env = market.Trading(_write(tmp_path / "p.csv", bars), window=(40, 90), episode_bars=0)
    actions = np.random.default_rng(0).integers(0, 3, 50)
    _, rewards = _episode(env, actions.tolist())
    np.testing.assert_allclose(
        rewards * env.reward_unit, market.returns_of(bars, 40, actions - 1, env.cost), rtol=0, atol=1e-12
    )


def test_features_and_rewards_are_scaled_by_the_training_window_only(tmp_path: Path) -> None:
    bars = _random_bars(120)
    wild = bars._replace(close=np.where(np.arange(120) >= 80, bars.close * 3, bars.close))
    scalings = [
        market.Trading(_write(tmp_path / name, own), train=(32, 80), window=(80, 119)).scaling
        for name, own in (("calm.csv", bars), ("wild.csv", wild))
    ]
    np.testing.assert_array_equal(scalings[0].mean, scalings[1].mean)
    np.testing.assert_array_equal(scalings[0].deviation, scalings[1].deviation)
    returns = np.diff(np.log(bars.close))[31:79]
    assert scalings[0].deviation[0] == pytest.approx(returns.std(), rel=1e-12)


def test_an_episode_is_determined_by_its_seed() -> None:
    """So that a run resumes exactly."""
    for env in (market.GeneratedTrading(), market.GeneratedTrading("random-walk", leak=True)):
        first, second = _episode(env, [0, 1, 2, 2]), _episode(env, [0, 1, 2, 2])
        np.testing.assert_array_equal(first[0], second[0])
        assert not np.array_equal(env.reset(seed=2)[0], first[0][0])


def test_a_picture_shows_the_position_behind_the_price() -> None:
    env = market.GeneratedTrading(render_mode="rgb_array")
    _episode(env, [2, 0])
    picture = env.render()
    assert picture.shape == (360, 640, 3)
    assert picture.dtype == np.uint8
    shown = {tuple(colour) for colour in picture.reshape(-1, 3)}
    assert {(20, 70, 110), (120, 62, 20)} <= shown
    assert len(env.get_action_meanings()) == env.action_space.n


GOOD = "Time,Open,Close\n2020-01-06 10:00,1,1\n2020-01-06 11:00,1,1\n2020-01-06 12:00,1,2\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (GOOD + "2020-01-06 12:00,1,1\n", r"line 5: 2020-01-06T12:00:00 is there twice: remove one"),
        (GOOD + "2020-01-06 09:00,1,1\n", r"line 5: 2020-01-06T09:00:00 follows 2020-01-06T12:00:00: sort the lines"),
        (GOOD + "2020-01-06 15:00,1,1\n", r"line 5: a gap; 2 bars are missing from 2020-01-06T13:00:00 on: add them"),
        (GOOD + "2020-01-06 13:00,1,0\n", r"line 5: Close is '0', and a price is a positive number"),
        (GOOD + "2020-01-06 13:00,nan,1\n", r"line 5: Open is 'nan'"),
        (GOOD + "2020-01-06 13:00,1\n", r"line 5: Close is None"),
        (GOOD + "yesterday,1,1\n", r"line 5: 'yesterday' is no time: write it like 2017-12-29 21:00"),
        ("Time,Price\n", r"line 1: the columns are \['Time', 'Price'\]; a CSV file needs the columns Time"),
        ("Time,Open,Close\n", r"has 0 lines of prices"),
        (
            "Date,Open,Close\n" + "".join(f"2020-01-{day:02},1,1\n" for day in (6, 7, 8, 14)),
            r"line 5: a gap; 3 bars are missing from 2020-01-09",
        ),
    ],
)
def test_a_price_file_with_a_fault_is_refused_by_line(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "p.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"p\.csv.*{words}"):
        prices.load(str(path))


def test_closed_markets_are_no_gaps(tmp_path: Path) -> None:
    """Weekends and Christmas of hours; weekends and up to two holidays of days."""
    hours = ["2017-12-22 20:00", "2017-12-24 23:00", "2017-12-25 00:00", "2017-12-26 00:00", "2017-12-26 01:00"]
    days = ["2012-10-25", "2012-10-26", "2012-10-31", "2012-11-01", "2012-11-02"]
    for name, times in (("hours.csv", hours), ("days.csv", days)):
        path = tmp_path / name
        path.write_text("Time,Open,Close\n" + "".join(f"{time},1,1\n" for time in times))
        assert len(prices.load(str(path)).close) == 5


def test_the_packaged_files_are_read_with_their_licence() -> None:
    """Day first, and in ISO form."""
    forex, stocks = prices.load("forex"), prices.load("stocks")
    assert (str(forex.times[0]), forex.open[0], forex.close[-1]) == ("2017-01-01T22:00:00", 1.05236, 1.20075)
    assert (str(stocks.times[-1]), stocks.close[-1], len(stocks.close)) == ("2018-08-29T00:00:00", 1264.650024, 2335)
    assert prices.licence("forex").startswith("FOREX_EURUSD_1H_ASK.csv of gym-anytrading 2.0.0, MIT licence. Copyright")


def test_a_faulty_file_ends_training_with_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text(GOOD + "2020-01-06 12:00,1,1\n")
    place = f"{FOLDER / 'market.py'}:Trading-v0"
    ended = run("--env", place, "--env-kwargs", json.dumps({"prices": str(path)}), "--runs-dir", tmp_path / "runs")
    assert ended.code == 2
    assert "line 5: 2020-01-06T12:00:00 is there twice: remove one of the two lines" in ended.printed


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"window": (10, 50)}, r"window is \[10, 50\): the file has 60 bars, so give 32 <= first < last <= 59"),
        ({"train": (40, 60)}, r"train is \[40, 60\)"),
        ({"fee": -1}, "give parts of the amount"),
    ],
)
def test_a_window_or_a_cost_that_cannot_be_is_refused(tmp_path: Path, arguments: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        market.Trading(_write(tmp_path / "p.csv", _random_bars(60)), **arguments)
    with pytest.raises(ValueError, match="no series 'trend': choose from mean-reverting, random-walk"):
        market.GeneratedTrading("trend")


def test_the_dynamic_programme_finds_what_trying_all_sequences_finds() -> None:
    """A known path of six bars: 729 sequences of positions."""
    rng, cost, positions = np.random.default_rng(3), 0.004, np.array([-1.0, 0.0, 1.0])
    log_price = np.append(0.0, np.cumsum(rng.normal(0, 0.01, 6)))
    gain = np.log1p(positions * np.expm1(np.diff(log_price))[:, None])  # [6, 3]
    transition = np.eye(7, k=1)
    transition[-1, -1] = 1
    values, actions = series.optimal_policy(transition, np.vstack([gain, np.zeros(3)]), positions, cost, 6)

    def earned(sequence: tuple[int, ...]) -> float:
        held = np.array([0.0, *positions[list(sequence)], 0.0])
        return float(np.log1p(-cost * np.abs(np.diff(held))).sum() + sum(gain[t, a] for t, a in enumerate(sequence)))

    totals = {sequence: earned(sequence) for sequence in itertools.product(range(3), repeat=6)}
    best = max(totals, key=lambda sequence: totals[sequence])
    assert values[0, 0, 1] == pytest.approx(totals[best], abs=1e-12)
    held, taken = 1, []
    for t in range(6):
        held = int(actions[t, t, held])
        taken.append(held)
    assert tuple(taken) == best
    assert len(set(best)) > 1


def test_on_a_random_walk_the_optimum_is_to_stay_out_and_with_a_leak_to_follow_it() -> None:
    plain, leaked = series.optimum("random-walk", 0.001, 50), series.optimum("random-walk", 0.001, 50, leak=True)
    assert series.start_value(plain) == pytest.approx(0, abs=1e-9)
    assert (plain.actions[:, :, 1] == 1).all()
    assert leaked.actions[25, [0, 100, 200], 1].tolist() == [0, 1, 2]
    mean_move = 0.01 * math.sqrt(2 / math.pi)  # of one bar; without costs all of it is earned
    assert 0.8 * 50 * mean_move < series.start_value(leaked) < 50 * mean_move


def test_the_computed_optimum_is_what_its_policy_earns() -> None:
    """Within four standard errors. One that ignores costs earns less than 80 %, so 90 % need them to be learned."""
    envs = [market.GeneratedTrading() for _ in range(300)]
    best = series.optimum("mean-reverting", envs[0].cost, 128)
    free = series.optimum("mean-reverting", 0.0, 128)
    totals = [
        np.array([own.returns.sum() for own in known.play(known.OptimalPolicy(policy, envs), envs, range(300))])
        for policy in (best, free)
    ]
    assert abs(totals[0].mean() - series.start_value(best)) < 4 * totals[0].std() / math.sqrt(300)
    assert totals[1].mean() < 0.8 * totals[0].mean()


def test_an_agent_finds_the_optimum_of_a_mean_reverting_series(tmp_path: Path) -> None:
    """A brief training: at least 80 % here, 90 % after the whole one."""
    agent = hvd_dqn.train(
        {"config": str(FOLDER / "settings.toml")},
        env=f"{FOLDER / 'market.py'}:GeneratedTrading-v0",
        total_env_steps=20_000,
        final_evaluation_episodes=10,
        runs_dir=tmp_path,
        progress="off",
    )
    found = known.judge("mean-reverting", agent.policy)
    assert found["interval"][0] >= 0.8 * found["optimal"]
    assert abs(found["optimal_played"] - found["optimal"]) < 0.02 * found["optimal"]


def test_a_deflated_sharpe_ratio_is_that_of_its_paper() -> None:
    """Bailey and López de Prado (2014), "A numerical example": 100 trials, 2.5 a year, 1,250 days."""
    threshold = sharpe.expected_best(0.5 / 250, 100)
    assert threshold == pytest.approx(0.1132, abs=5e-5)
    deflated = sharpe.deflated_sharpe(2.5 / math.sqrt(250), threshold, 1_250, -3.0, 10.0)
    assert deflated == pytest.approx(0.9004, abs=5e-5)
    fewer = sharpe.deflated_sharpe(2.5 / math.sqrt(250), sharpe.expected_best(0.5 / 250, 46), 1_250, -3.0, 10.0)
    assert fewer == pytest.approx(0.9505, abs=5e-5)
    assert sharpe.expected_best(0.5, 1) == 0


def test_moments_and_sharpe_ratios_are_those_of_the_definition() -> None:
    returns = np.array([0.0, 0.0, 0.0, 4.0])
    assert sharpe.sharpe_ratio(returns) == pytest.approx(1 / math.sqrt(3))
    assert sharpe.moments(returns) == pytest.approx((2 / math.sqrt(3), 7 / 3))
    assert sharpe.sharpe_ratio(np.zeros((2, 5))).tolist() == [0, 0]
    assert sharpe.moments(np.zeros(5)) == (0, 3)


def test_blocks_keep_the_dependence_that_single_values_lose() -> None:
    """The interval of an AR(1) series' mean is sqrt((1 + phi) / (1 - phi)) = 2 times that of independent values."""
    rng, phi = np.random.default_rng(0), 0.6
    values = np.array(list(itertools.accumulate(rng.normal(0, 1, 20_000), lambda x, e: phi * x + e)))
    widths = [
        np.diff(sharpe.block_bootstrap(values, lambda drawn: drawn.mean(axis=-1), block, resamples=1_000))[0]
        for block in (1, 100)
    ]
    assert widths[0] == pytest.approx(2 * 1.96 * values.std() / math.sqrt(20_000), rel=0.1)
    assert widths[1] / widths[0] == pytest.approx(2.0, rel=0.15)
    whole = sharpe.block_bootstrap(values, lambda drawn: drawn.mean(axis=-1), 20_000, resamples=10)
    assert whole == pytest.approx((values.mean(), values.mean()))


def test_windows_follow_one_another_and_tests_cover_each_bar_once() -> None:
    plan = walk_forward.PLANS["stocks"]
    found = walk_forward.windows(2_335, plan)
    assert len(found) == 9
    for window in found:
        assert window.train[1] == window.validate[0]
        assert window.validate[1] == window.test[0]
        assert [last - first for first, last in window] == [1_008, 126, 126]
    assert [own.test[1] for own in found[:-1]] == [own.test[0] for own in found[1:]]
    assert found[-1].test[1] < 2_335


def test_positions_survive_their_letters() -> None:
    positions = np.random.default_rng(0).integers(-1, 2, 100)
    np.testing.assert_array_equal(walk_forward.decode(walk_forward.encode(positions)), positions)
    assert walk_forward.encode([0, 0, 1, -1]) == "2f1l1s"


@pytest.fixture
def tests_of_two_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Runs of two settings and three seeds on a file that rises; `bold` is long, `shy` is flat until the tests."""
    plan = walk_forward.Plan(40, 20, 20, 252, 5, fee=1e-4, half_spread=1e-4, short=True)
    rise = np.exp(0.001 * np.arange(150) + 0.002 * np.sin(np.arange(150)))
    bars = _random_bars(150)._replace(open=rise, close=np.append(rise[1:], rise[-1] * 1.001))
    monkeypatch.setitem(walk_forward.PLANS, str(tmp_path / "p.csv"), plan)
    _write(tmp_path / "p.csv", bars)
    count = len(walk_forward.windows(150, plan))
    assert count == 2
    return [
        walk_forward.Tested(setting, window, seed, np.full(20, setting == "bold"), np.full(20, 1 - (seed == 2), int))
        for setting in ("bold", "shy")
        for window in range(count)
        for seed in range(3)
    ]


def test_settings_are_chosen_on_validation_windows_only(tests_of_two_settings: list[Any], tmp_path: Path) -> None:
    name = str(tmp_path / "p.csv")
    assert verdict.Tests(name, tests_of_two_settings).choose() == ["bold", "bold"]
    spoiled = [own._replace(test=-own.test) if own.setting == "bold" else own for own in tests_of_two_settings]
    assert verdict.Tests(name, spoiled).choose() == ["bold", "bold"]
    with pytest.raises(ValueError, match="are missing: start the program again"):
        verdict.Tests(name, tests_of_two_settings[1:])


def test_a_verdict_names_median_worst_and_baselines(tests_of_two_settings: list[Any], tmp_path: Path) -> None:
    """Long in all tests, but for the flat seed; costs are paid at the ends of both tests."""
    found = verdict.judge(str(tmp_path / "p.csv"), tests_of_two_settings)
    rows = {row.name.partition(",")[0]: row for row in found.rows if "median" not in row.name}
    agent, hold = found.rows[0], rows["buy and hold"]
    assert rows["agent"][1:] == rows["cash"][1:] == (0, 0, 0, 0)
    assert agent.position == hold.position == 1
    assert hold.total - agent.total == pytest.approx(-200 * math.log(1 - 2e-4))
    assert agent.turnover == pytest.approx(2 * hold.turnover)
    assert found.interval[0] > 0
    assert found.trials == 2
    assert 0 < found.deflated <= 1
    assert verdict.table(found).count("\n") == 2 + len(found.rows) - 1


def test_random_timing_keeps_position_and_turnover(tests_of_two_settings: list[Any], tmp_path: Path) -> None:
    tests = verdict.Tests(str(tmp_path / "p.csv"), tests_of_two_settings)
    agent = tests.closing_each(np.random.default_rng(0).integers(-1, 2, 40))
    for shifted in verdict.random_timing(tests, agent)[:20]:
        assert sorted(shifted.positions) == sorted(agent.positions)
        assert abs(shifted.traded - agent.traded) <= 6  # at the ends of two tests
        assert not np.array_equal(shifted.positions, agent.positions)


def test_the_crossing_of_averages_uses_closes_up_to_its_decision() -> None:
    bars, span = _random_bars(120), (60, 100)
    found = verdict.moving_average_crossing(bars, span, short=True)
    for place, now in ((0, 60), (39, 99)):
        fast, slow = bars.close[now - 9 : now + 1].mean(), bars.close[now - 49 : now + 1].mean()
        assert found[place] == (1 if fast > slow else -1)
    assert verdict.moving_average_crossing(bars, span, short=False).min() == 0


@pytest.mark.slow
def test_one_command_trains_judges_and_draws_and_continues_where_it_was(tmp_path: Path) -> None:
    command = [
        *(sys.executable, str(FOLDER / "run.py"), "--parts", "known", "stocks", "--seeds", "1", "--settings", "base"),
        *("--env-steps", "6000", "--results", "results.jsonl", "--figure", "figure.png"),
    ]
    first = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=900)
    assert first.returncode == 0, first.stderr
    assert "MIT licence" in first.stdout
    assert "Does it beat buy and hold?" in first.stdout
    lines = (tmp_path / "results.jsonl").read_text().splitlines()
    assert len(lines) == 3 + 9
    assert (tmp_path / "figure.png").stat().st_size > 10_000
    (tmp_path / "results.jsonl").write_text("\n".join(lines[:-1]) + "\n")
    second = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)
    assert second.stdout.count("\nrun ") + second.stdout.startswith("run ") == 1
    assert (tmp_path / "results.jsonl").read_text().splitlines() == lines
