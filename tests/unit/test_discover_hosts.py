"""Laws of the script that tells horovodrun which hosts there are: it asks them."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "launch" / "discover_hosts.sh"
ELSEWHERE = "2130706433"
"""127.0.0.1 as one number: a name that the script does not know for this machine's."""


@contextlib.contextmanager
def _server(greeting: bytes) -> Iterator[int]:
    """Serves a port that greets everybody; empty: that accepts and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        served: list[socket.socket] = []

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    served.append(connection)
                    connection.sendall(greeting)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5.0)
        for connection in served:
            connection.close()


def _discover(hosts: Path, port: int = 22) -> tuple[list[str], float]:
    since = time.monotonic()
    answer = subprocess.run(
        [str(SCRIPT), str(hosts)],
        env={**os.environ, "SSH_PORT": str(port)},
        capture_output=True,
        text=True,
        check=True,
    )
    return sorted(answer.stdout.split()), time.monotonic() - since


def test_this_machines_names_need_no_ssh_and_comments_are_none(tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text(f"# all\nlocalhost:2\n\n127.0.0.1 # the same\n127.1:1\n{socket.gethostname()}:3")
    found, _ = _discover(hosts, port=1)
    assert found == sorted(["localhost:2", "127.0.0.1:1", "127.1:1", f"{socket.gethostname()}:3"])


def test_a_host_whose_ssh_server_greets_is_there(tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text(f"{ELSEWHERE}:4\n")
    with _server(b"SSH-2.0-Test\r\n") as port:
        assert _discover(tmp_path / "hosts", port)[0] == [f"{ELSEWHERE}:4"]


@pytest.mark.parametrize("greeting", [b"", b"220 mail\r\n"])
def test_a_host_that_says_nothing_or_something_else_is_not_there(tmp_path: Path, greeting: bytes) -> None:
    (tmp_path / "hosts").write_text(f"{ELSEWHERE}:4\n" * 5 + "localhost:1\n")
    with _server(greeting) as port:
        found, seconds = _discover(tmp_path / "hosts", port)
    assert found == ["localhost:1"]
    assert seconds < 4.0, "all are asked at once"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    answer = subprocess.run([str(SCRIPT), str(tmp_path / "nowhere")], capture_output=True, text=True, check=False)
    assert answer.returncode == 1
    assert f"no hosts file '{tmp_path}/nowhere'" in answer.stderr
