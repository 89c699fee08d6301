#!/usr/bin/env python
"""Makes two network namespaces with a link between them that delays every packet; as root.

slow_link.py NAME_A NAME_B DELAY_MILLISECONDS

The ends are 10.89.0.1 in NAME_A and 10.89.0.2 in NAME_B. It prints "ready", carries packets until
its standard input ends, and then removes both. (In user space, since many kernels come without netem; in the kernel
where there is no delay.)
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


def run_ip(command: str) -> None:
    """Runs `ip`."""
    subprocess.run(["ip", *command.split()], check=True)


def make_end(namespace: str) -> int:
    """Makes an interface called as a namespace, and returns the descriptor that its packets come and go through."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", namespace.encode(), IFF_TUN | IFF_NO_PI))
    return descriptor


def enclose(namespace: str, address: str) -> None:
    """Makes a namespace and puts the interface of its name into it."""
    run_ip(f"netns add {namespace}")
    run_ip(f"link set {namespace} netns {namespace}")
    run_ip(f"-n {namespace} link set lo up")
    run_ip(f"-n {namespace} link set {namespace} mtu {MTU} txqueuelen 10000 up")
    run_ip(f"-n {namespace} address add {address}/24 dev {namespace}")


def carry(ends: tuple[int, int], delay: float) -> None:
    """Passes packets from each end to the other, `delay` seconds later, until standard input ends."""
    waiting: collections.deque[tuple[float, int, bytes]] = collections.deque()
    while True:
        timeout = max(0.0, waiting[0][0] - time.monotonic()) if waiting else None
        # poll and epoll would round the time up to milliseconds.
        for descriptor in select.select([*ends, sys.stdin.fileno()], [], [], timeout)[0]:
            if descriptor not in ends:
                return
            other = ends[1 - ends.index(descriptor)]
            waiting.append((time.monotonic() + delay, other, os.read(descriptor, MTU)))
        while waiting and waiting[0][0] <= time.monotonic():
            _, descriptor, packet = waiting.popleft()
            os.write(descriptor, packet)


def main() -> None:
    """Makes the link, carries packets, cleans up."""
    near, far, milliseconds = sys.argv[1:]
    namespaces, delay = (near, far), float(milliseconds) / 1e3
    ends = (make_end(near), make_end(far)) if delay else None
    try:
        if ends is None:
            run_ip(f"link add {near} type veth peer name {far}")
        for namespace, address in zip(namespaces, ADDRESSES, strict=True):
            enclose(namespace, address)
        print("ready", flush=True)
        if ends is None:
            sys.stdin.read()
        else:
            carry(ends, delay)
    finally:
        for namespace in namespaces:
            subprocess.run(["ip", "netns", "delete", namespace], check=False)


if __name__ == "__main__":
    main()
