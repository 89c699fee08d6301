"""Pods on one machine: a host of hosts.py whose root is what the image and the cluster would give a container.

The root is this machine's own under an overlay, so that nothing written in a pod is seen outside, with the project at
/app, the run volume at /app/runs and the job's keys where the MPIJob wants them. Commands run there as user 1000, as
they stand in the manifest.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hosts import Host
from launching import ROOT

USER = 1000
_ENVIRON = {
    "PATH": "/app/.venv/bin:/usr/bin:/bin:/usr/sbin",
    "HOME": "/tmp",
    "MPLCONFIGDIR": "/tmp/matplotlib",
}
_ROOT_FILE_SYSTEM = """
set -e
mkdir "$POD" && mount -t tmpfs -o size=4g tmpfs "$POD" && cd "$POD"
mkdir upper work root app-upper app-work
mount -t overlay -o lowerdir=/,upperdir=upper,workdir=work overlay root
mkdir -p root/app "root$KEYS_AT" root/etc/mpi root/run/sshd
mount -t overlay -o "lowerdir=$PROJECT,upperdir=app-upper,workdir=app-work" overlay root/app
mount -t tmpfs -o mode=1777 tmpfs root/tmp
mkdir -p root/app/runs "root$PROJECT"
mount --bind "$PROJECT" "root$PROJECT" # the environment knows its own place
mount --bind "$RUNS" root/app/runs
for folder in proc dev sys; do mount --rbind "/$folder" "root/$folder"; done
mount --bind "$FOLDER/hosts" root/etc/hosts
install -m 644 "$FOLDER/keys"/* "root$KEYS_AT"
install -m 444 "$FOLDER/hostfile" root/etc/mpi/hostfile
printf '%s\\n' root:x:0:0::/root:/bin/bash sshd:x:105:65534::/run/sshd:/usr/sbin/nologin \\
    trainer:x:1000:1000::/home/trainer:/bin/sh >root/etc/passwd
# Whoever started the tests may keep the project and its Python to themselves.
for start in "$PROJECT" "$INTERPRETER"; do
    while [ "$start" != / ]; do chmod a+rx "root$start"; start=$(dirname "$start"); done
done
"""


def write_keys(folder: Path) -> None:
    """Makes the files that the operator would mount into every pod."""
    keys = folder / "keys"
    keys.mkdir()
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ecdsa", "-b", "521", "-m", "PEM", "-N", "", "-f", str(keys / "id_rsa")], check=True
    )
    (keys / "authorized_keys").write_bytes((keys / "id_rsa.pub").read_bytes())


@dataclass(frozen=True)
class Pod:
    """One container of an MPIJob on a host."""

    host: Host
    container: Mapping[str, Any]
    root: Path

    @classmethod
    def make(cls, host: Host, container: Mapping[str, Any], keys_at: str, folder: Path, runs: Path) -> Pod:
        """Prepares the container's root on a host that runs."""
        pod = folder / f"pod-{host.name}-{host.pid}"
        values = {"POD": pod, "PROJECT": ROOT, "RUNS": runs, "FOLDER": folder, "KEYS_AT": keys_at}
        values["INTERPRETER"] = (ROOT / ".venv" / "bin" / "python").resolve()
        environ = [f"{name}={value}" for name, value in values.items()]
        host.run("env", *environ, "bash", "-c", _ROOT_FILE_SYSTEM)
        return cls(host, container, pod / "root")

    def start(self, log: Path, *more: str, environ: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Starts the container's own command with some more arguments."""
        command = [*self.container["command"], *self.container.get("args", []), *more]
        with log.open("ab") as output:
            return subprocess.Popen(
                self.command(*command, environ=environ),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def command(self, *command: str, environ: Mapping[str, str] | None = None) -> list[str]:
        """Returns the command line that runs a command in the container."""
        variables = [f"{name}={value}" for name, value in (_ENVIRON | dict(environ or {})).items()]
        ids = ("--userspec", f"{USER}:{USER}", "--groups", str(USER))
        inside = ("sh", "-c", 'cd /app && exec "$@"', "sh", *command)
        return self.host.command("chroot", *ids, str(self.root), "env", *variables, *inside)
