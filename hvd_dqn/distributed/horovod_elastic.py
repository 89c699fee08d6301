"""What Horovod says to a rank of an elastic job: that the hosts have changed, and that a peer is lost."""

from __future__ import annotations

import re
from typing import Any, Protocol

import tensorflow as tf

_OPERATION = re.compile("Horovod(Allreduce|Allgather|Alltoall|Broadcast)")


class HostListener(Protocol):
    """Is notified of other hosts."""

    def on_hosts_updated(self, timestamp: Any, result: Any) -> None:
        """Called by a thread of Horovod, on one of the ranks."""


def listen_for_hosts(listener: HostListener) -> None:
    """Registers with Horovod's elastic driver; it notifies one of the ranks."""
    from horovod.common.elastic import notification_manager

    notification_manager.init()
    notification_manager.register_listener(listener)


def is_failed_collective(error: Exception) -> bool:
    """Returns whether an exception is what TensorFlow makes of a Horovod operation that has lost a peer."""
    from horovod.common.exceptions import HorovodInternalError

    if isinstance(error, tf.errors.UnknownError):
        return _OPERATION.search(str(error)) is not None
    return isinstance(error, HorovodInternalError)
