"""Laws of the metrics on disk, read back by json and by TensorBoard's own reader."""

from __future__ import annotations

import json
import math
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hvd_dqn.run.metrics import DiskMetrics


def _record(env_steps: int, **values: Any) -> dict[str, Any]:
    return {"kind": "training", "env_steps": env_steps, "unix_time": 1000.0 + env_steps, **values}


def _open(folder: Path) -> DiskMetrics:
    return DiskMetrics(folder / "metrics.jsonl", folder / "tensorboard", {"gamma": 0.9, "double": True, "loss": "mse"})


def _lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def _scalars(folder: Path, tag: str) -> list[tuple[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reader = EventAccumulator(str(folder / "tensorboard"))
    reader.Reload()
    return [(event.step, event.value) for event in reader.Scalars(tag)]


def test_each_record_is_one_json_line(tmp_path: Path) -> None:
    metrics = _open(tmp_path)
    metrics.write(_record(100, loss=0.5, episodes=3))
    metrics.write(_record(200, loss=0.25, episodes=4))
    metrics.close()
    assert _lines(tmp_path) == [_record(100, loss=0.5, episodes=3), _record(200, loss=0.25, episodes=4)]


def test_a_line_is_on_disk_as_soon_as_it_is_written(tmp_path: Path) -> None:
    metrics = _open(tmp_path)
    metrics.write(_record(100, loss=0.5))
    assert len(_lines(tmp_path)) == 1
    metrics.close()


def test_tensorboard_reads_the_hyper_parameters_and_by_which_metrics_to_compare(tmp_path: Path) -> None:
    """By the plugin's own code, from the event files of two runs."""
    from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
    from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
    from tensorboard.context import RequestContext
    from tensorboard.plugins import base_plugin
    from tensorboard.plugins.hparams import backend_context, metadata

    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        metrics = _open(tmp_path / name)
        metrics.write(_record(100, mean_return=7.0) | {"kind": "evaluation"})
        metrics.close()
    runs = EventMultiplexer().AddRunsFromDirectory(str(tmp_path))
    runs.Reload()
    provider = MultiplexerDataProvider(runs, str(tmp_path))
    context = backend_context.Context(base_plugin.TBContext(data_provider=provider))
    tags = context.hparams_metadata(RequestContext(), str(tmp_path))
    assert sorted(tags) == ["a/tensorboard", "b/tensorboard"]
    start = metadata.parse_session_start_info_plugin_data(tags["a/tensorboard"][metadata.SESSION_START_INFO_TAG])
    assert start.hparams["gamma"].number_value == 0.9
    assert start.hparams["double"].bool_value is True
    assert start.hparams["loss"].string_value == "mse"
    experiment = context.experiment_from_metadata(RequestContext(), str(tmp_path), True, tags, [])
    assert {info.name for info in experiment.hparam_infos} == {"gamma", "double", "loss"}
    assert "evaluation/mean_return" in {info.name.tag for info in experiment.metric_infos}


def test_what_is_absent_or_not_finite_is_null_and_the_lines_stay_json(tmp_path: Path) -> None:
    metrics = _open(tmp_path)
    metrics.write(_record(100, loss=math.nan, mean_q=math.inf, mean_return=None, epsilon=0.5))
    metrics.close()
    text = (tmp_path / "metrics.jsonl").read_text()

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    record = json.loads(text, parse_constant=refuse)
    assert (record["loss"], record["mean_q"], record["mean_return"], record["epsilon"]) == (None, None, None, 0.5)
    assert _scalars(tmp_path, "training/epsilon") == [(100, 0.5)]
    with pytest.raises(KeyError):
        _scalars(tmp_path, "training/loss")


def test_tensorboard_reads_the_same_numbers(tmp_path: Path) -> None:
    metrics = _open(tmp_path)
    for step in (100, 200, 300):
        metrics.write(_record(step, loss=step / 4, episodes=step))
    metrics.write(_record(300, mean_return=7.0) | {"kind": "evaluation"})
    metrics.close()
    assert _scalars(tmp_path, "training/loss") == [(100, 25.0), (200, 50.0), (300, 75.0)]
    assert _scalars(tmp_path, "training/episodes") == [(100, 100.0), (200, 200.0), (300, 300.0)]
    assert _scalars(tmp_path, "evaluation/mean_return") == [(300, 7.0)]


def test_a_resumed_run_forgets_what_lies_beyond_its_checkpoint(tmp_path: Path) -> None:
    """Written to 300, resumed at 200 by a new process, written again: every step once, the new values."""
    before = _open(tmp_path)
    for step in (100, 200, 300):
        before.write(_record(step, loss=1.0))
    before.close()
    after = _open(tmp_path)
    after.cut_after(200)
    after.write(_record(300, loss=2.0))
    after.write(_record(400, loss=2.0))
    after.close()
    expected = [(100, 1.0), (200, 1.0), (300, 2.0), (400, 2.0)]
    assert [(line["env_steps"], line["loss"]) for line in _lines(tmp_path)] == expected
    assert _scalars(tmp_path, "training/loss") == expected


def test_a_record_is_found_by_kind_and_step_beside_a_half_written_line(tmp_path: Path) -> None:
    metrics = _open(tmp_path)
    metrics.write(_record(300, mean_return=7.0) | {"kind": "final_evaluation"})
    metrics.write(_record(400, loss=1.0))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "final_evaluation", "env_steps": 40')
    assert metrics.holds("final_evaluation", 300)
    assert not metrics.holds("final_evaluation", 400)
    assert not metrics.holds("evaluation", 300)
    metrics.close()


def test_a_run_whose_disk_is_gone_gets_its_saved_lines_back(tmp_path: Path) -> None:
    """In metrics.jsonl and TensorBoard; where there are lines already, they give way, and TensorBoard has them."""
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    before = _open(tmp_path / "old")
    for step in (100, 200, 300):
        before.write(_record(step, loss=1.0))
    before.close()
    saved = (tmp_path / "old" / "metrics.jsonl").read_bytes() + b'{"env_steps": 5}\n{"env_st'
    for _ in range(2):
        after = _open(tmp_path / "new")
        after.cut_after(200, saved)
        after.close()
        assert [line["env_steps"] for line in _lines(tmp_path / "new")] == [100, 200, 5]
        assert _scalars(tmp_path / "new", "training/loss") == [(100, 1.0), (200, 1.0)]


@pytest.mark.parametrize("rest", ['{"kind": "training", "env_st', '{"kind": "training"}\n', "[1]\n", "\x00\x00", "7\n"])
def test_half_written_and_foreign_lines_are_dropped(tmp_path: Path, rest: str) -> None:
    metrics = _open(tmp_path)
    metrics.write(_record(100, loss=1.0))
    metrics.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(rest)
    metrics = _open(tmp_path)
    metrics.cut_after(1000)
    metrics.write(_record(200, loss=1.0))
    metrics.close()
    assert [line["env_steps"] for line in _lines(tmp_path)] == [100, 200]


def test_a_line_that_lacks_only_its_end_does_not_swallow_the_next(tmp_path: Path) -> None:
    metrics = _open(tmp_path)
    metrics.write(_record(100, loss=1.0))
    metrics.close()
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(path.read_bytes()[:-1])
    metrics = _open(tmp_path)
    metrics.cut_after(1000)
    metrics.write(_record(200, loss=1.0))
    metrics.close()
    assert [line["env_steps"] for line in _lines(tmp_path)][-1] == 200


def test_a_path_that_cannot_be_written_is_an_os_error(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(OSError, match="directory"):
        _open(tmp_path)


@contextmanager
def _files_of_at_most(size: int) -> Iterator[None]:
    """Lets no file grow beyond a size, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_record_that_does_not_fit_leaves_no_part_of_itself(tmp_path: Path) -> None:
    """On a disk that is full for a while: what was written before and after is read back, in both files."""
    metrics = _open(tmp_path)
    metrics.write(_record(100, loss=0.5))
    (events,) = (tmp_path / "tensorboard").iterdir()
    for step, path in ((200, tmp_path / "metrics.jsonl"), (250, events)):
        with _files_of_at_most(path.stat().st_size + 10), pytest.raises(OSError, match=r"space|large"):
            metrics.write(_record(step, loss=0.25))
    metrics.write(_record(300, loss=0.125))
    metrics.close()
    assert [line["env_steps"] for line in _lines(tmp_path)] == [100, 250, 300], "the event file is the larger one"
    assert [step for step, _ in _scalars(tmp_path, "training/loss")] == [100, 300]


@pytest.mark.parametrize("failing", ["jsonl", "events"])
def test_a_file_that_fails_does_not_keep_the_record_from_the_other(failing: str, tmp_path: Path) -> None:
    metrics = _open(tmp_path)
    metrics.write(_record(100, loss=0.5))
    file = metrics._jsonl if failing == "jsonl" else metrics._events._file
    with open("/dev/full", "wb") as full:
        os.dup2(full.fileno(), file._file.fileno())
    with pytest.raises(OSError, match="space"):
        metrics.write(_record(200, loss=0.25))
    metrics.close()
    steps = [line["env_steps"] for line in _lines(tmp_path)], [s for s, _ in _scalars(tmp_path, "training/loss")]
    assert steps == (([100], [100, 200]) if failing == "jsonl" else ([100, 200], [100]))
