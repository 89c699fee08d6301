"""Laws of reading and writing a run's files."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from hvd_dqn.errors import CheckpointError, StoreError
from hvd_dqn.files import list_files, parse_json, read_file, remove, write_file

from .permissions import modes_apply


def _link(path: Path) -> None:
    path.with_name("target").write_bytes(b"x")
    path.symlink_to("target")


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


def _sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 60 * 10**9)


NO_FILES: dict[str, Callable[[Path], object]] = {
    "a pipe": os.mkfifo,
    "a folder": Path.mkdir,
    "a link": _link,
    "a link to nothing": lambda path: path.symlink_to("nothing"),
    "a socket": _socket,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a sparse file": _sparse,
}


@pytest.mark.parametrize("name", NO_FILES)
def test_what_is_no_regular_file_of_bounded_size_is_refused_at_once(name: str, tmp_path: Path) -> None:
    NO_FILES[name](tmp_path / "f")
    with pytest.raises(CheckpointError, match=r"f is not a regular file|more than 1,000"):
        read_file(tmp_path / "f", 1000)


def test_a_file_below_a_link_or_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "f").write_bytes(b"x")
    (tmp_path / "link").symlink_to("real")
    for path in (tmp_path / "link" / "f", tmp_path / "real" / "f" / "g"):
        with pytest.raises(CheckpointError):
            read_file(path, 1000)


def test_absent_and_unreadable_are_told_apart(tmp_path: Path) -> None:
    for path in (tmp_path / "f", tmp_path / "none" / "f"):
        with pytest.raises(FileNotFoundError):
            read_file(path, 10)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "f").write_bytes(b"x")
    assert list_files(tmp_path / "folder") == ["f"]
    assert list_files(tmp_path / "none") == []
    for name, unreadable in (("folder/f", tmp_path / "folder" / "f"), ("folder", tmp_path / "folder")):
        mode = unreadable.stat().st_mode
        unreadable.chmod(0)
        with modes_apply(), pytest.raises(StoreError, match=f"{name}.* cannot be read: Permission denied"):
            read_file(tmp_path / "folder" / "f", 10)
        unreadable.chmod(mode)
    (tmp_path / "folder").chmod(0)
    with modes_apply(), pytest.raises(StoreError, match="folder cannot be read"):
        list_files(tmp_path)
    (tmp_path / "folder").chmod(0o755)


def test_no_link_leads_a_write_or_a_deletion_elsewhere(tmp_path: Path) -> None:
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    for folder in (outside, inside):
        folder.mkdir()
    (outside / "f").write_bytes(b"mine")
    (inside / "folder").symlink_to(outside)
    (inside / "file").symlink_to(outside / "f")
    (inside / f".file.{os.getpid()}.tmp").symlink_to(outside / "f")
    for path in (inside / "folder" / "f", inside / "folder" / "new" / "f"):
        with pytest.raises(OSError, match="link"):
            write_file(path, b"yours")
        with pytest.raises(OSError, match="link"):
            remove(path)
    write_file(inside / "file", b"yours")
    assert not (inside / "file").is_symlink()
    (inside / "deep").mkdir()
    (inside / "deep" / "folder").symlink_to(outside)
    for name in ("folder", "deep"):
        remove(inside / name)
    assert [path.name for path in inside.iterdir()] == ["file"]
    assert [(path.name, path.read_bytes()) for path in outside.iterdir()] == [("f", b"mine")]


@pytest.mark.parametrize("text", ["[" * 10**6, '{"a":' * 10**6, "9" * 10**6, "1" * 41, "", "{", "\x00"])
def test_json_of_any_depth_and_size_of_numbers_is_an_error_in_words(text: str) -> None:
    with pytest.raises(ValueError, match=r"^.{1,200}$"):
        parse_json(text)
