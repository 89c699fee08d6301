"""A network cable with a delay and a rate between two network namespaces; Linux' netem, where the kernel has none.

    slow_cable.py PID:INTERFACE PID:INTERFACE DELAY_MILLISECONDS MEGABITS_PER_SECOND

Makes an interface in the network namespace of each process and carries frames between them while it lives.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import queue
import struct
import sys
import threading
import time

_CLONE_NEWNET = 0x40000000
_TUNSETIFF = 0x400454CA
_TAP_WITHOUT_HEADER = 0x0002 | 0x1000
_LONGEST_FRAME = 65_536
_QUEUE_FRAMES = 1000


def open_end(end: str) -> int:
    """Makes an interface and returns the file from which its frames are read, and to which they are written."""
    pid, _, name = end.partition(":")
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/self/ns/net") as here, open(f"/proc/{pid}/ns/net") as there:
        if libc.setns(there.fileno(), _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"no way into the network of process {pid}")
        file = os.open("/dev/net/tun", os.O_RDWR)
        fcntl.ioctl(file, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _TAP_WITHOUT_HEADER))
        libc.setns(here.fileno(), _CLONE_NEWNET)
    return file


def carry(source: int, target: int, delay: float, bytes_per_second: float) -> None:
    """Carries frames in one direction; what does not fit into the queue is lost, as in a switch."""
    frames: queue.Queue[tuple[float, bytes]] = queue.Queue(_QUEUE_FRAMES)

    def deliver() -> None:
        while True:
            due, frame = frames.get()
            if (early := due - time.monotonic()) > 0.0:
                time.sleep(early)
            try:
                os.write(target, frame)
            except OSError:
                continue  # the interface is not up

    threading.Thread(target=deliver, daemon=True).start()
    free = time.monotonic()
    while True:
        frame = os.read(source, _LONGEST_FRAME)
        free = max(free, time.monotonic()) + len(frame) / bytes_per_second
        try:
            frames.put_nowait((free + delay, frame))
        except queue.Full:
            continue


def main(first: str, second: str, delay_milliseconds: str, megabits: str) -> None:
    """Lays the cable and carries frames for ever."""
    ends = open_end(first), open_end(second)
    delay, rate = float(delay_milliseconds) / 1e3, float(megabits) * 1e6 / 8
    threads = [threading.Thread(target=carry, args=(*pair, delay, rate), daemon=True) for pair in (ends, ends[::-1])]
    for thread in threads:
        thread.start()
    print("ready", flush=True)
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main(*sys.argv[1:])
