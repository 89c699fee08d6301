"""Several hosts on one machine: each a set of namespaces with its own name, address, /dev/shm, processes and sshd.

    head     the network's switch, and where users log in
    node1…   where ranks run

A host lives as long as its first process. That one dies with the tests' process, so that nothing of a host (its
processes, its network, its mounts) outlives them, however they end.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

PACKAGES = ("openssh-server", "openssh-client", "iproute2", "util-linux")
_PROGRAMS = ("/usr/sbin/sshd", "ssh-keygen", "ip", "unshare", "nsenter", "setpriv")
_SUBNET = "10.213.7"
_HOME = Path(pwd.getpwuid(os.getuid()).pw_dir)

_FIRST_PROCESS = """
set -e
hostname "$NAME"
mount -t tmpfs -o size=2g tmpfs /dev/shm
mount -t tmpfs tmpfs /run
mkdir /run/sshd
mount --bind "$FOLDER/hosts" /etc/hosts
mount --bind "$FOLDER/ssh" "$SSH_FOLDER"
ip link set lo up
touch "$FOLDER/$NAME.ready"
while :; do wait || true; sleep 0.2; done
"""
_SSH_CONFIG = """Host *
  StrictHostKeyChecking no
  UserKnownHostsFile /dev/null
  LogLevel ERROR
  ConnectTimeout 5
  ServerAliveInterval 2
  ServerAliveCountMax 3
"""
_SSHD_CONFIG = """Port 22
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


@dataclass(frozen=True)
class Link:
    """What the way between two nodes is like, in each direction; each node's cable is half of it."""

    delay_milliseconds: float
    megabits_per_second: float


@dataclass
class Host:
    """One host; `pid` is its first process, as this machine counts."""

    name: str
    address: str
    _folder: Path
    _process: subprocess.Popen[bytes] = field(init=False)
    _cables: list[subprocess.Popen[bytes]] = field(init=False, default_factory=list)
    pid: int = field(init=False)

    def start(self) -> None:
        """Starts the host, without a network."""
        (self._folder / f"{self.name}.ready").unlink(missing_ok=True)
        namespaces = ("unshare", "--net", "--uts", "--mount", "--ipc", "--pid", "--fork", "--kill-child")
        environ = os.environ | {"NAME": self.name, "FOLDER": str(self._folder), "SSH_FOLDER": str(_HOME / ".ssh")}
        with (self._folder / f"{self.name}.log").open("ab") as log:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *namespaces, "--mount-proc", "bash", "-c", _FIRST_PROCESS],
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_until((self._folder / f"{self.name}.ready").exists, 10.0, f"{self.name} is up")
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        (self.pid,) = map(int, children.read_text().split())

    def command(self, *command: str | Path) -> list[str]:
        """Returns the command line that runs a command on this host, in the present folder."""
        inside = (
            "nsenter",
            f"--target={self.pid}",
            "--net",
            "--uts",
            "--mount",
            "--ipc",
            "--pid",
            f"--wd={Path.cwd()}",
        )
        return [*inside, *map(str, command)]

    def run(self, *command: str | Path, seconds: float = 60.0) -> str:
        """Runs a command on this host and returns what it prints."""
        done = subprocess.run(self.command(*command), capture_output=True, text=True, timeout=seconds, check=False)
        assert done.returncode == 0, (
            f"{command} on {self.name} ended with {done.returncode}: {done.stderr}{done.stdout}"
        )
        return done.stdout

    def processes(self) -> dict[int, str]:
        """Returns the command lines of all processes on this host, by this machine's process ids."""
        with contextlib.suppress(OSError):
            own = os.readlink(f"/proc/{self.pid}/ns/pid")
            return {
                int(entry.name): (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                for entry in Path("/proc").iterdir()
                if entry.name.isdigit() and _link(entry / "ns/pid") == own
            }
        return {}

    def ranks(self) -> list[int]:
        """Returns the process ids of the ranks on this host."""
        words = {pid: line.split(" ") for pid, line in self.processes().items()}
        return [pid for pid, (name, *rest) in words.items() if Path(name).name == "python" and "train.py" in rest[0]]

    def lay_cable(self, head: Host, port: str, link: Link) -> None:
        """Connects eth0 to a port of the head by a cable that delays; it lasts as long as the host."""
        program = Path(__file__).parent / "slow_cable.py"
        ends = (f"{self.pid}:eth0", f"{head.pid}:{port}")
        shape = (str(link.delay_milliseconds / 2), str(link.megabits_per_second))
        cable = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", sys.executable, str(program), *ends, *shape],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )
        assert cable.stdout is not None
        assert cable.stdout.readline() == b"ready\n"
        self._cables.append(cable)

    def kill(self) -> None:
        """Takes the host away at once, with all that runs on it, as a power cut does."""
        self._process.kill()
        self._process.wait(10.0)
        while self._cables:
            cable = self._cables.pop()
            cable.kill()
            cable.wait(10.0)
        wait_until(lambda: not Path(f"/proc/{self.pid}").exists(), 10.0, f"{self.name} is gone")


class Hosts:
    """A head and some nodes on one network."""

    def __init__(self, folder: Path, nodes: int, link: Link | None = None) -> None:
        """Prepares keys and names in a private folder.

        Args:
          folder: of these hosts.
          nodes: their number, without the head.
          link: what each node's cable is like; None: as fast as the machine.
        """
        require_root_and(_PROGRAMS, PACKAGES)
        self._link = link
        self.folder = folder
        folder.chmod(0o755)
        self.head = Host("head", f"{_SUBNET}.1", folder)
        self.nodes = [Host(f"node{k}", f"{_SUBNET}.{10 + k}", folder) for k in range(1, nodes + 1)]
        ssh = folder / "ssh"
        ssh.mkdir(mode=0o700)
        for key in (folder / "host_key", ssh / "id_ed25519"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
        shutil.copy(ssh / "id_ed25519.pub", ssh / "authorized_keys")
        (ssh / "config").write_text(_SSH_CONFIG)
        (folder / "sshd.conf").write_text(_SSHD_CONFIG.format(folder=folder))
        names = [f"{host.address} {host.name}\n" for host in (self.head, *self.nodes)]
        (folder / "hosts").write_text("127.0.0.1 localhost\n" + "".join(names))

    def start(self) -> None:
        """Starts all hosts, their network and their sshd."""
        self.head.start()
        for command in ("link add bridge0 type bridge", f"addr add {self.head.address}/24 dev bridge0"):
            self._network(*command.split())
        self._network("link", "set", "bridge0", "up")
        self.head.run("/usr/sbin/sshd", "-f", self.folder / "sshd.conf")
        for node in self.nodes:
            self.start_node(node)

    def start_node(self, node: Host) -> None:
        """Starts one node, the first time or after `kill`."""
        node.start()
        port = f"to-{node.name}"
        if self._link is None:
            self._network(*f"link add {port} type veth peer name eth0 netns {node.pid}".split())
        else:
            node.lay_cable(self.head, port, self._link)
        self._network(*f"link set {port} master bridge0 up".split())
        node.run(*f"ip addr add {node.address}/24 dev eth0".split())
        # A host that comes back has the same card: its neighbours remember the address.
        card = f"02:00:00:00:00:{int(node.address.rpartition('.')[2]):02x}"
        node.run("ip", "link", "set", "eth0", "address", card, "up")
        node.run("/usr/sbin/sshd", "-f", self.folder / "sshd.conf")

    def cut(self, node: Host) -> None:
        """Pulls a node's cable: nothing reaches it any more, and nobody is told."""
        self._network("link", "set", f"to-{node.name}", "down")

    def mend(self, node: Host) -> None:
        """Plugs the cable in again."""
        self._network("link", "set", f"to-{node.name}", "up")

    def ranks(self) -> dict[str, list[int]]:
        """Returns the ranks that live, by host; hosts without any are left out."""
        living = {host.name: host.ranks() for host in (self.head, *self.nodes)}
        return {name: pids for name, pids in living.items() if pids}

    def end(self) -> None:
        """Takes all hosts away."""
        for host in (*self.nodes, self.head):
            with contextlib.suppress(AttributeError):  # never started
                host.kill()

    def _network(self, *command: str) -> None:
        """Runs `ip` where the switch is, seeing this machine's process ids."""
        subprocess.run(["nsenter", f"--target={self.head.pid}", "--net", "ip", *command], check=True)


@contextlib.contextmanager
def running_hosts(folder: Path, nodes: int, link: Link | None = None) -> Iterator[Hosts]:
    """Gives hosts for the time of a with-block."""
    ssh = _HOME / ".ssh"  # sshd and ssh look for keys there; each host sees a private folder in its place
    made = not ssh.exists()
    ssh.mkdir(mode=0o700, exist_ok=True)
    hosts = Hosts(folder, nodes, link)
    try:
        hosts.start()
        yield hosts
    finally:
        hosts.end()
        if made:
            ssh.rmdir()


def require_root_and(programs: Sequence[str], packages: Sequence[str]) -> None:
    """Fails with what to install or do, where hosts cannot be made here."""
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        pytest.fail(f"not found: {', '.join(missing)}. Install: apt-get install {' '.join(packages)}", pytrace=False)
    if os.geteuid() != 0:
        pytest.fail("the hosts of these tests are Linux namespaces, which only root can make: sudo make test-launch")


def wait_until(holds: Callable[[], bool], seconds: float, what: str) -> None:
    """Returns as soon as something holds; fails after some seconds."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"{seconds:g} s went by before {what}"
        time.sleep(0.05)


def _link(path: Path) -> str:
    with contextlib.suppress(OSError):
        return os.readlink(path)
    return ""
