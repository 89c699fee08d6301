"""A Docker daemon of the tests' own, and a base image made of Debian's packages: no registry is asked for images.

Image layers stay in ~/.cache/hvd_dqn-tests/docker, so that Horovod is compiled in the image only when its inputs have
changed. Removing that folder is safe.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hosts import require_root_and, wait_until
from launching import ROOT

PACKAGES = ("docker.io", "mmdebstrap")
_PROGRAMS = ("/usr/sbin/dockerd", "/usr/bin/mmdebstrap")
_DATA = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hvd_dqn-tests" / "docker"
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
_BASE = "hvd-dqn-tests-base"


class Docker:
    """The daemon, while it runs."""

    def __init__(self, folder: Path) -> None:
        """Starts the daemon.

        Args:
          folder: for the socket, the log and what runs.
        """
        require_root_and(_PROGRAMS, PACKAGES)
        self._folder = folder
        socket = folder / "docker.sock"
        # Debian's client has no BuildKit of its own: the Dockerfile is built by what every Docker can.
        self._environ = {**os.environ, "DOCKER_HOST": f"unix://{socket}", "DOCKER_BUILDKIT": "0"}
        self._log = (folder / "dockerd.log").open("w")
        options = {
            "data-root": _DATA,
            "exec-root": folder / "exec",
            "host": f"unix://{socket}",
            "pidfile": folder / "pid",
            "bridge": "none",  # no network but the host's or none: nothing on this machine is changed
            "default-ulimit": "nofile=10000:10000",
        }
        words = [f"--{name}={value}" for name, value in options.items()]
        self._process = subprocess.Popen(
            ["/usr/sbin/dockerd", *words, "--iptables=false", "--ip6tables=false"], stdout=self._log, stderr=self._log
        )

    def wait_until_up(self) -> None:
        """Returns once the daemon answers."""
        wait_until(lambda: self._process.poll() is not None or self.attempt("version").returncode == 0, 60.0, "dockerd")
        assert self._process.poll() is None, (self._folder / "dockerd.log").read_text()

    def attempt(self, *words: str | Path, seconds: float = 120.0) -> subprocess.CompletedProcess[str]:
        """Runs a docker command."""
        line = ["docker", *map(str, words)]
        return subprocess.run(
            line, env=self._environ, capture_output=True, text=True, timeout=seconds, check=False, cwd=ROOT
        )

    def run(self, *words: str | Path, seconds: float = 120.0) -> str:
        """Runs a docker command that has to succeed, and returns what it prints."""
        done = self.attempt(*words, seconds=seconds)
        assert done.returncode == 0, f"docker {' '.join(map(str, words))}:\n{done.stdout[-6000:]}{done.stderr[-6000:]}"
        return done.stdout

    def make_base(self) -> str:
        """Makes a Debian image, once, and returns its name. It trusts this machine's certificates, for proxies."""
        if self.attempt("image", "inspect", _BASE).returncode == 0:
            return _BASE
        archive = self._folder / "base.tar"
        hook = "--customize-hook=copy-in /etc/ssl/certs /etc/ssl"
        line = ["mmdebstrap", "--quiet", "--variant=apt", "--include=ca-certificates", hook, "bookworm", str(archive)]
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        changes = [f"--change=ENV {name}={_CERTIFICATES}" for name in ("SSL_CERT_FILE", "PIP_CERT")]
        self.run("import", *changes, archive, _BASE)
        archive.unlink()
        return _BASE

    def build(self, folder: Path, name: str, seconds: float, **arguments: str) -> None:
        """Builds an image from a folder's Dockerfile."""
        words = [f"--build-arg={key}={value}" for key, value in arguments.items()]
        self.run("build", "--network=host", "--force-rm", *words, f"--tag={name}", folder, seconds=seconds)

    def unpack(self, image: str, folder: Path) -> None:
        """Writes an image's files into a new folder, as a container runtime without a daemon wants them."""
        folder.mkdir()
        container = self.run("create", "--network=none", image).strip()
        try:
            export = ["docker", "export", container]
            with subprocess.Popen(export, env=self._environ, stdout=subprocess.PIPE) as files:
                subprocess.run(["tar", "-x", "-C", folder, "--exclude=dev/*"], stdin=files.stdout, check=True)
        finally:
            self.run("rm", container)

    def inspect(self, name: str) -> dict[str, Any]:
        """Returns what Docker knows of an image or container."""
        return json.loads(self.run("inspect", name))[0]

    def stop(self) -> None:
        """Ends the daemon and its containers."""
        if self._process.poll() is None:
            for container in self.run("ps", "--all", "--quiet").split():
                self.run("rm", "--force", container)
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(30.0)
        self._process.kill()
        self._process.wait()
        self._log.close()
        namespace = self._folder / "exec" / "netns" / "default"  # of containers without a network; dockerd leaves it
        subprocess.run(["umount", "--lazy", namespace], capture_output=True, check=False)


@contextlib.contextmanager
def running_docker() -> Iterator[Docker]:
    """Yields a daemon, one at a time on this machine; of what it stored only images stay."""
    folder = Path(tempfile.mkdtemp(prefix="hvd_dqn-docker-"))
    folder.chmod(0o711)
    _DATA.mkdir(parents=True, exist_ok=True)
    lock = _DATA.with_name("lock").open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    docker = None
    try:
        docker = Docker(folder)
        docker.wait_until_up()
        yield docker
    finally:
        if docker is not None:
            docker.stop()
        lock.close()
        deadline = time.monotonic() + 10.0
        while folder.exists() and time.monotonic() < deadline:
            shutil.rmtree(folder, ignore_errors=True)
