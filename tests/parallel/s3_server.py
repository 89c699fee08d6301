"""A real S3 server for the time of a test (moto's standalone one), behind a door that can be shut."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

SECRET = "a-secret-that-nobody-may-write-down"
BUCKET = "bucket"


class Door:
    """Forwards connections from a port of its own; while it is shut, they are refused and the open ones are cut."""

    def __init__(self, behind: int) -> None:
        """Takes a free port and opens.

        Args:
          behind: the port to forward to.
        """
        self._behind = behind
        self._listener: socket.socket | None = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open_ends: list[socket.socket] = []
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def shut(self) -> None:
        """Lets nothing through any more."""
        listener, self._listener = self._listener, None
        for end in (*([listener] if listener else []), *self._open_ends):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self._open_ends = []

    def open(self) -> None:
        """Lets all through again."""
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        while listener is self._listener:
            try:
                near, _ = listener.accept()
            except OSError:  # the door is shut, or a client has gone before it was let in
                continue
            try:
                far = socket.create_connection(("127.0.0.1", self._behind))
            except OSError:
                near.close()
                continue
            self._open_ends += [near, far]
            for ends in ((near, far), (far, near)):
                threading.Thread(target=_pump, args=ends, daemon=True).start()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    for end in (source, target):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


class S3Server:
    """A server with an empty bucket in it; `log` is what it prints."""

    def __init__(self, log: Path) -> None:
        """Starts it; `stop` ends it.

        Args:
          log: file of what the server prints.
        """
        self.log = log
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self._port)]
        with log.open("wb") as output:
            self._process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        try:
            self._wait(log)
            self.door = Door(self._port)
            self.reset()
        except BaseException:
            self.stop()
            raise

    @property
    def environ(self) -> dict[str, str]:
        """Returns the environment that a job needs."""
        return {
            "AWS_ACCESS_KEY_ID": "an-identity",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.door.port}",
        }

    def objects(self) -> dict[str, bytes]:
        """Returns all objects of the bucket by name, asked for at the server's own door."""
        import boto3

        client = boto3.client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{self._port}",
            aws_access_key_id="an-identity",
            aws_secret_access_key=SECRET,
            region_name="us-east-1",
        )
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
        names = [entry["Key"] for page in pages for entry in page.get("Contents", [])]
        return {name: client.get_object(Bucket=BUCKET, Key=name)["Body"].read() for name in names}

    def names(self) -> list[str]:
        """Returns the names of all objects of the bucket, a thousand at most."""
        text = self._ask("GET", f"/{BUCKET}?list-type=2")
        return [part.partition("</Key>")[0] for part in text.split("<Key>")[1:]]

    def reset(self) -> None:
        """Empties the bucket and lets everybody in."""
        self._ask("POST", "/moto-api/reset-auth", b"inf")
        self._ask("POST", "/moto-api/reset")
        self._ask("PUT", f"/{BUCKET}")

    def deny_all(self) -> None:
        """Lets nobody in from now on who has no rights, which is everybody."""
        self._ask("POST", "/moto-api/reset-auth", b"0")

    def stop(self) -> None:
        """Ends it."""
        if hasattr(self, "door"):
            self.door.shut()
        self._process.kill()
        self._process.wait()

    def _ask(self, method: str, path: str, data: bytes | None = None) -> str:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._port}{path}", data, {"Content-Type": "text/plain"}, method=method
        )
        with urllib.request.urlopen(request, timeout=60.0) as answer:
            return str(answer.read().decode())

    def _wait(self, log: Path) -> None:
        deadline = time.monotonic() + 60.0
        while True:
            assert self._process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._port), 1.0):
                return
            time.sleep(0.05)


@contextlib.contextmanager
def s3_server(log: Path) -> Iterator[S3Server]:
    """Runs a server for the time of a with-block."""
    server = S3Server(log)
    try:
        yield server
    finally:
        server.stop()
