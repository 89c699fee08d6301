"""Several hosts on one machine: each has namespaces of its own for network, names, processes, mounts and memory.

A host that is killed takes everything on it along, at once. Only root may make them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

_SSH_CONFIG = """Host *
  User root
  StrictHostKeyChecking no
  UserKnownHostsFile /dev/null
  LogLevel ERROR
  ConnectTimeout 5
  ServerAliveInterval 5
  ServerAliveCountMax 3
"""
_SSHD_CONFIG = """Port 22
ListenAddress {address}
HostKey {folder}/host_key
PidFile none
AuthorizedKeysFile {folder}/ssh/authorized_keys
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
UseDNS no
MaxStartups 100
"""
_INIT = """
hostname "$1"
mount --bind "$2/hosts" /etc/hosts
mount --bind "$2/ssh" /root/.ssh
mount -t tmpfs -o size=1g tmpfs /dev/shm
"$3" -D -e -f "$2/$1.sshd" &
while :; do wait; sleep 1; done
"""


def why_not() -> str | None:
    """Returns why there can be no such hosts here, or None."""
    if os.geteuid() != 0:
        return "only root may make hosts of namespaces"
    missing = [tool for tool in ("ip", "unshare", "nsenter", "ssh", "ssh-keygen") if shutil.which(tool) is None]
    if _sshd() is None:
        missing.append("sshd")
    return f"missing: {', '.join(missing)}" if missing else None


class Nodes:
    """Hosts node1, node2 and so on, joined by a bridge; each has one network card, eth0."""

    def __init__(self, folder: Path, count: int) -> None:
        """Names them; `start` makes them."""
        mark = os.getpid() % 65_536
        self._folder, self._tag = folder, f"hvd{mark:x}"
        self._net = f"10.{100 + mark // 256 % 100}.{mark % 256}"
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._home_was_missing = not Path("/root/.ssh").exists()
        self._count = count

    def start(self) -> None:
        """Makes and starts them."""
        self._write_files(self._count)
        _do("ip", "link", "add", self._bridge, "type", "bridge")
        _do("ip", "link", "set", self._bridge, "up")
        for number in range(1, self._count + 1):
            self._add(number)

    def inside(self, number: int) -> list[str]:
        """Returns what goes before a command that is to run on a host."""
        return ["nsenter", "-t", str(self._init(number)), "-n", "-u", "-m", "-i", "-p", f"--wd={os.getcwd()}"]

    def kill(self, number: int) -> None:
        """Takes a host away with all that runs on it."""
        os.kill(self._init(number), signal.SIGKILL)
        self._processes.pop(number).wait(10.0)

    def unplug(self, number: int) -> None:
        """Pulls a host's cable: nothing on it ends, and nothing of it is heard any more."""
        _do("ip", "link", "set", f"{self._tag}v{number}", "down")

    def close(self) -> None:
        """Takes all hosts away, however far they came."""
        for number in list(self._processes):
            with contextlib.suppress(OSError, AssertionError):
                self.kill(number)
        spaces = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=False).stdout
        for name in [line.split()[0] for line in spaces.splitlines() if line.startswith(f"{self._tag}n")]:
            _do("ip", "netns", "del", name)
        subprocess.run(["ip", "link", "del", self._bridge], capture_output=True, check=False)
        if self._home_was_missing:
            with contextlib.suppress(OSError):
                Path("/root/.ssh").rmdir()

    @property
    def _bridge(self) -> str:
        return f"{self._tag}b"

    def _address(self, number: int) -> str:
        return f"{self._net}.{10 + number}"

    def _write_files(self, count: int) -> None:
        ssh = self._folder / "ssh"
        ssh.mkdir(parents=True)
        ssh.chmod(0o700)
        for key in (ssh / "id_ed25519", self._folder / "host_key"):
            _do("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key))
        shutil.copy(ssh / "id_ed25519.pub", ssh / "authorized_keys")
        (ssh / "config").write_text(_SSH_CONFIG)
        names = [f"{self._address(number)} node{number}" for number in range(1, count + 1)]
        (self._folder / "hosts").write_text("\n".join(["127.0.0.1 localhost", *names, ""]))

    def _add(self, number: int) -> None:
        space, card = f"{self._tag}n{number}", f"{self._tag}v{number}"
        name, sshd = f"node{number}", _sshd()
        assert sshd is not None
        _do("ip", "netns", "add", space)
        _do("ip", "link", "add", card, "type", "veth", "peer", "name", "eth0", "netns", space)
        _do("ip", "link", "set", card, "master", self._bridge, "up")
        _do("ip", "-n", space, "addr", "add", f"{self._address(number)}/24", "dev", "eth0")
        _do("ip", "-n", space, "link", "set", "eth0", "up")
        _do("ip", "-n", space, "link", "set", "lo", "up")
        Path("/run/sshd").mkdir(exist_ok=True)
        Path("/root/.ssh").mkdir(exist_ok=True)
        config = _SSHD_CONFIG.format(address=self._address(number), folder=self._folder)
        (self._folder / f"{name}.sshd").write_text(config)
        apart = ["unshare", "--uts", "--mount", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc"]
        with (self._folder / f"{name}.log").open("wb") as log:
            self._processes[number] = subprocess.Popen(
                ["ip", "netns", "exec", space, *apart, "bash", "-c", _INIT, "_", name, str(self._folder), sshd],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + 20.0
        while "listening" not in (self._folder / f"{name}.log").read_text():
            assert time.monotonic() < deadline, (self._folder / f"{name}.log").read_text()
            time.sleep(0.05)

    def _init(self, number: int) -> int:
        """Returns the process, as seen from here, that is a host's first: the child of its `unshare`."""
        parent = self._processes[number].pid
        return int(Path(f"/proc/{parent}/task/{parent}/children").read_text().split()[0])


@contextlib.contextmanager
def nodes(folder: Path, count: int) -> Iterator[Nodes]:
    """Makes hosts for the time of a with-block."""
    made = Nodes(folder, count)
    try:
        made.start()
        yield made
    finally:
        made.close()


def _sshd() -> str | None:
    return shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def _do(*command: str) -> None:
    """Runs a command that has to succeed."""
    outcome = subprocess.run(command, capture_output=True, text=True, check=False)
    assert outcome.returncode == 0, f"{' '.join(command)}: {outcome.stderr}"
