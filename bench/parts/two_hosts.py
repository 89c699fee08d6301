"""Two hosts on this machine, with a link between them that is as slow as one likes."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from parts.jobs import launcher

NEAR, FAR = "hvd-dqn-near", "hvd-dqn-far"
ADDRESSES, NETWORK = "10.89.0.1,10.89.0.2", "10.89.0.0/24"
LINK = Path(__file__).parents[1] / "programs" / "slow_link.py"
AGENT = f"""#!/bin/sh
shift
exec taskset -c 1 unshare --uts sh -c 'hostname far; exec ip netns exec {FAR} sh -c "$*"' sh "$@"
"""
"""Called as ssh is, HOST COMMAND...: runs the command in the far host's network, on the other core."""


@contextlib.contextmanager
def two_hosts(delay: float) -> Iterator[list[str]]:
    """Yields an mpirun of two ranks, each on a core and in a network of its own; as root.

    Args:
      delay: milliseconds that the link delays each packet, one way.

    Raises:
      RuntimeError: if the link cannot be made.
    """
    with tempfile.TemporaryDirectory() as folder:
        agent = Path(folder) / "agent.sh"
        agent.write_text(AGENT)
        agent.chmod(0o755)
        over_tcp = {
            **{"plm_rsh_agent": str(agent), "pml": "ob1", "btl": "tcp,self"},
            **{"btl_tcp_if_include": NETWORK, "oob_tcp_if_include": NETWORK},
        }
        settings = [word for name, value in over_tcp.items() for word in ("--mca", name, value)]
        # mpirun would bind each host's first rank to its first core, which here is one and the same.
        settings += ["--bind-to", "none"]
        command = [sys.executable, str(LINK), NEAR, FAR, f"{delay:g}"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as link:
            assert link.stdin is not None
            assert link.stdout is not None
            try:
                if link.stdout.readline() != "ready\n":
                    raise RuntimeError("no link between two networks: it needs root, /dev/net/tun and `ip`")
                yield ["taskset", "-c", "0", "ip", "netns", "exec", NEAR, *launcher(2), "-H", ADDRESSES, *settings]
            finally:
                link.stdin.close()
