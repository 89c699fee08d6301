"""Laws of a run's files whatever has become of them, shown by whole runs.

What cannot be read is not absent, what is read is bounded, and no link leads a write or a deletion elsewhere.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import pytest

from hvd_dqn import files
from hvd_dqn.checkpoint import save
from hvd_dqn.checkpoint.files import sha256, write_json

from .permissions import modes_apply
from .whole_runs import QUICK, contents, run

STEPS = "000000000150"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a run of 150 env steps with three checkpoints."""
    runs = tmp_path_factory.mktemp("runs")
    assert run(*QUICK, "--runs-dir", runs, "--name", "a", "--total-env-steps", "150").code == 0
    return runs / "CartPole-v1" / "a"


@pytest.fixture
def directory(finished: Path, tmp_path: Path) -> Path:
    """Returns a copy to spoil."""
    return shutil.copytree(finished, tmp_path / "CartPole-v1" / "a")


def _segment(directory: Path) -> Path:
    return sorted(directory.glob("checkpoints/replay/*/*.zst"))[-1]


UNREADABLE = ["", "config.json", "metrics.jsonl", "checkpoints", f"checkpoints/{STEPS}", "checkpoints/replay"]
UNREADABLE += [f"checkpoints/{STEPS}/{name}" for name in ("manifest.json", "state.json", "learner.safetensors")]


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_cannot_be_read_is_not_absent_and_nothing_is_deleted(name: str, directory: Path) -> None:
    before, path = contents(directory), directory / name
    mode = path.stat().st_mode
    for arguments in (
        ("--resume", str(directory)),
        ("--resume", "auto", "--name", "a", "--runs-dir", str(directory.parent.parent)),
    ):
        path.chmod(0)
        try:
            with modes_apply():
                ended = run(*arguments, "--total-env-steps", "200")
        finally:
            path.chmod(mode)
        assert (ended.code, "Permission denied" in ended.printed) == (2, True), ended.printed
        after = contents(directory)
        assert {name: after.get(name) for name in before if name != "lock" and "tfevents" not in name} == {
            name: content for name, content in before.items() if name != "lock" and "tfevents" not in name
        }


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _folder(path: Path) -> None:
    path.mkdir()
    (path / "file").touch()


def _sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 60 * 10**9)


def _deep(path: Path) -> None:
    path.write_bytes(b"[" * 1_000_000)


def _device(path: Path) -> None:
    path.symlink_to("/dev/zero")


FILES = ["config.json", "metrics.jsonl", "lock", *(f"checkpoints/{STEPS}/{n}" for n in ("manifest.json", "state.json"))]


@pytest.mark.parametrize("put", [_pipe, _folder, _sparse, _deep, _device])
@pytest.mark.parametrize("name", [*FILES, "segment"])
def test_no_file_of_any_kind_makes_a_run_hang_or_fail_without_words(
    name: str, put: Callable[[Path], None], directory: Path
) -> None:
    path = _segment(directory) if name == "segment" else directory / name
    path.unlink()
    put(path)
    ended = run("--resume", directory, "--total-env-steps", "250")
    if "checkpoints" in str(path.relative_to(directory)):
        assert ended.code == 0, ended.printed
        assert "resumed from the checkpoint at env step 100" in ended.printed
        assert f"{path.name} " in ended.printed
        ended = run("--resume", directory, "--total-env-steps", "300")
        assert "resumed from the checkpoint at env step 250" in ended.printed
    else:
        harmless = (name, put) in [("lock", _deep), ("lock", _sparse), ("metrics.jsonl", _deep)]
        assert ended.code == (0 if harmless else 2), ended.printed
        assert path.name in ended.printed or ended.code == 0


@pytest.mark.parametrize(
    "name",
    [
        *("config.json", "metrics.jsonl", "lock", "tensorboard", "waiting", "profile", "checkpoints"),
        *("checkpoints/replay", "checkpoints/replay/rank-00000-of-00001", f"checkpoints/{STEPS}"),
        *(f"checkpoints/{STEPS}/manifest.json", f"checkpoints/{STEPS}/learner.safetensors"),
    ],
)
def test_a_link_leads_no_run_outside_its_directory(name: str, directory: Path, tmp_path: Path) -> None:
    path, outside = directory / name, tmp_path / "outside"
    outside.mkdir()
    (outside / "other").write_bytes(b"another's")
    if path.exists():
        path.rename(outside / path.name)
    else:
        (outside / path.name).mkdir()
    path.symlink_to(outside / path.name)
    before = contents(outside)
    for steps in ("200", "250"):
        ended = run("--resume", directory, "--total-env-steps", steps, "--keep-checkpoints", "1")
        assert ended.code in (0, 2), ended.printed
        assert ended.code == 0 or path.name in ended.printed
        assert contents(outside) == before


def test_a_manifest_that_is_gone_is_named(directory: Path) -> None:
    (directory / "checkpoints" / STEPS / "manifest.json").unlink()
    ended = run("--resume", directory, "--total-env-steps", "200")
    assert ended.code == 0
    assert f"{STEPS} is incomplete: it has no manifest.json" in ended.printed


LITTER = [
    ".config.json.77.tmp",
    "waiting/rank-00001",
    "checkpoints/parts-1f/rank-00000.json",
    "tensorboard/events",
    "lock",
]


def test_what_a_kill_leaves_before_the_configuration_is_in_nobodys_way(tmp_path: Path) -> None:
    directory = tmp_path / "CartPole-v1" / "a"
    for name in LITTER:
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).touch()
    assert run(*QUICK, "--runs-dir", tmp_path, "--name", "a", "--total-env-steps", "50").code == 0
    assert run("--resume", directory, "--total-env-steps", "100").code == 0


def test_new_and_resume_do_not_point_at_each_other(directory: Path) -> None:
    """Checkpoints without their configuration: not to be deleted, and not to be resumed."""
    (directory / "config.json").unlink()
    before = contents(directory)
    for arguments in (("--resume", str(directory)), ("--name", "a", "--runs-dir", str(directory.parent.parent))):
        ended = run(*arguments, "--total-env-steps", "200")
        assert ended.code == 2
        assert "no config.json" in ended.printed
        assert "resume that run" not in ended.printed
    assert contents(directory) == before


@pytest.mark.parametrize(
    "change",
    [
        {"counters": {"env_steps": 10**30}},
        {"counters": {"env_steps": 150, "learner_steps": 10**30}},
        {"counters": {"env_steps": 149}},
        {"ranks": []},
        {"counters": None},
    ],
)
def test_a_state_that_contradicts_its_manifest_or_all_sense_is_passed_over(
    change: dict[str, Any], directory: Path
) -> None:
    folder = directory / "checkpoints" / STEPS
    state = json.dumps(json.loads((folder / "state.json").read_text()) | change).encode()
    (folder / "state.json").write_bytes(state)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["state.json"] = {"bytes": len(state), "sha256": sha256(state)}
    del manifest["sha256"]
    digest = sha256(json.dumps(manifest, sort_keys=True).encode())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"sha256": digest}))
    ended = run("--resume", directory, "--total-env-steps", "200")
    assert ended.code == 0, ended.printed
    assert f"{STEPS} cannot be used" in ended.printed
    assert "resumed from the checkpoint at env step 100" in ended.printed


class Removes(gymnasium.Wrapper):
    """CartPole that removes a path in some step of the first environment, counted over all of its episodes."""

    path, at, steps = Path(), 0, 0

    def step(self, action: Any) -> Any:
        Removes.steps += 1
        if Removes.steps == self.at:
            while self.path.exists():  # a checkpoint may be coming into it
                shutil.rmtree(self.path, ignore_errors=True) if self.path.is_dir() else self.path.unlink()
        return self.env.step(action)


@pytest.mark.parametrize("part", ["", "config.json", "metrics.jsonl", "checkpoints", "checkpoints/replay"])
@pytest.mark.parametrize("at", [30, 170, "final"])
def test_a_directory_removed_in_the_middle_is_made_whole_again(part: str, at: Any, tmp_path: Path) -> None:
    """Of 150 iterations of two environments; `final` is in the final evaluation."""
    gymnasium.registry.pop("Removes-v0", None)
    gymnasium.register("Removes-v0", lambda **_: Removes(gymnasium.make("CartPole-v1")))
    directory = tmp_path / "Removes-v0" / "a"
    Removes.path, Removes.at, Removes.steps = directory / part, 302 if at == "final" else at, 0
    if not (part.startswith("checkpoints") and at == 30):
        ended = run(*QUICK, "--env", "Removes-v0", "--runs-dir", tmp_path, "--name", "a", "--total-env-steps", "300")
        assert ended.code == 0, ended.printed
        ended = run("--resume", directory, "--total-env-steps", "350")
        assert "resumed from the checkpoint at env step 300" in ended.printed
        assert (ended.code, "cannot be used" in ended.printed) == (0, False)
        lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
        assert [line["env_steps"] for line in lines if line["kind"] == "training"] == [*range(50, 351, 50)]


def test_a_part_that_is_removed_before_its_checkpoint_is_complete_costs_that_checkpoint_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever removes the run directory may do so between a rank's part and the manifest."""
    removed: list[Path] = []

    def write(path: Path, content: Any) -> None:
        write_json(path, content)
        if path.parent.name.startswith("parts-") and not removed:
            removed.append(path.parent)
            shutil.rmtree(path.parent)

    monkeypatch.setattr(save, "write_json", write)
    ended = run(*QUICK, "--runs-dir", tmp_path, "--name", "a", "--total-env-steps", "150")
    assert ended.code == 0, ended.printed
    assert ended.printed.count("the checkpoint at env step 50 could not be written: rank 0's part was removed") == 1
    saved = [path.parent.name for path in sorted(tmp_path.rglob("manifest.json"))]
    assert saved == ["000000000100", "000000000150"]


def test_a_replay_too_large_to_copy_is_saved_in_pieces_and_resumes_exactly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pieces that are written before training continues, and those after it, make up the same replay."""
    for module, name, count in ((save, "MOST_COPIED_BYTES", 1200), (save, "PIECE_BYTES", 400)):
        monkeypatch.setattr(module, name, count)
    learners = []
    for name, totals in (("straight", [300]), ("resumed", [130, 300])):
        directory = tmp_path / "CartPole-v1" / name
        assert run(*QUICK, "--runs-dir", tmp_path, "--name", name, "--total-env-steps", str(totals[0])).code == 0
        for total in totals[1:]:
            assert run("--resume", directory, "--total-env-steps", str(total)).code == 0
        learners.append((directory / "checkpoints" / "000000000300" / "learner.safetensors").read_bytes())
        assert len(list(directory.glob("checkpoints/replay/*/*.zst"))) > 300 / 50
    assert learners[0] == learners[1]


def test_a_resume_reads_each_segment_once(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    read_file = files.read_file

    def counting(path: Path, most: int) -> bytes:
        opened.append(path.name)
        return read_file(path, most)

    monkeypatch.setattr(files, "read_file", counting)
    state = json.loads((directory / "checkpoints" / STEPS / "state.json").read_text())
    assert run("--resume", directory, "--total-env-steps", "200").code == 0
    named = [Path(segment["file"]).name for segment in state["ranks"][0]["segments"]]
    assert sorted(name for name in opened if name.endswith(".zst")) == sorted(named)
