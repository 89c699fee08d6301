#!/usr/bin/env python
"""Makes two network namespaces with a link between them that delays every packet; as root.

slow_link.py NAME_A NAME_B DELAY_MILLISECONDS

The ends are 10.89.0.1 in NAME_A and 10.89.0.2 in NAME_B. It prints "ready", carries packets until its standard input
ends, and then removes both. (In user space, since many kernels come without netem.)
"""

from __future__ import annotations

import collections
import fcntl
import os
import select
import struct
import subprocess
import sys
import time

TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000
ADDRESSES = ("10.89.0.1", "10.89.0.2")
MTU = 65_000
"""Bytes of a packet: the larger, the less this program has to do for each."""


def make_end(namespace: str, address: str) -> int:
    """Makes a namespace with one end of the link, and returns the descriptor that its packets come and go through."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", namespace.encode(), IFF_TUN | IFF_NO_PI))
    for command in (
        f"netns add {namespace}",
        f"link set {namespace} netns {namespace}",
        f"-n {namespace} link set lo up",
        f"-n {namespace} link set {namespace} mtu {MTU} txqueuelen 10000 up",
        f"-n {namespace} address add {address}/24 dev {namespace}",
    ):
        subprocess.run(["ip", *command.split()], check=True)
    return descriptor


def carry(ends: tuple[int, int], delay: float) -> None:
    """Passes packets from each end to the other, `delay` seconds later, until standard input ends."""
    waiting: collections.deque[tuple[float, int, bytes]] = collections.deque()
    poll = select.epoll()
    for descriptor in (*ends, sys.stdin.fileno()):
        poll.register(descriptor, select.EPOLLIN)
    while True:
        timeout = max(0.0, waiting[0][0] - time.monotonic()) if waiting else -1
        for descriptor, _ in poll.poll(timeout):
            if descriptor not in ends:
                return
            other = ends[1 - ends.index(descriptor)]
            waiting.append((time.monotonic() + delay, other, os.read(descriptor, MTU)))
        while waiting and waiting[0][0] <= time.monotonic():
            _, descriptor, packet = waiting.popleft()
            os.write(descriptor, packet)


def main() -> None:
    """Makes the link, carries packets, cleans up."""
    *namespaces, milliseconds = sys.argv[1:]
    try:
        first, second = (make_end(*pair) for pair in zip(namespaces, ADDRESSES, strict=True))
        print("ready", flush=True)
        carry((first, second), float(milliseconds) / 1e3)
    finally:
        for namespace in namespaces:
            subprocess.run(["ip", "netns", "delete", namespace], check=False)


if __name__ == "__main__":
    main()
