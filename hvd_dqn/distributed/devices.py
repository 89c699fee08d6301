"""Which GPU a rank computes on: its own, or none."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from hvd_dqn.distributed.launcher import Launch
from hvd_dqn.errors import UserError


def visible_gpus(device: str) -> list[Any]:
    """Returns the GPUs that this process may use; hides them all from TensorFlow where the CPU is asked for.

    Args:
      device: auto, cpu or visible-gpu.
    """
    if device == "cpu":
        tf.config.set_visible_devices([], "GPU")
        return []
    return tf.config.list_physical_devices("GPU")


def own_gpu(device: str, num_gpus: int, launch: Launch) -> int | None:
    """Returns the number, among the visible ones, of the GPU that is this rank's alone; None for the CPU.

    Args:
      device: auto, cpu or visible-gpu.
      num_gpus: GPUs that this process sees.
      launch: how it was started.

    Raises:
      UserError: if there is no GPU for this rank.
    """
    if device == "cpu" or (device == "auto" and num_gpus == 0):
        return None
    if num_gpus == 0:
        raise UserError("--device visible-gpu, and TensorFlow sees no GPU: use --device auto or cpu, or see nvidia-smi")
    if device == "visible-gpu":
        return 0
    if launch.local_size > num_gpus:
        raise UserError(
            f"{launch.local_size} ranks on this host and {num_gpus} GPU(s) that they see: start at most {num_gpus} "
            "here, or use --device visible-gpu where a scheduler shows each rank its own (or all are to share the "
            "first), or --device cpu"
        )
    return launch.local_rank


def pin(gpu: Any) -> str:
    """Makes a GPU the only one that TensorFlow uses, taking memory as it needs it; returns its name."""
    tf.config.set_visible_devices(gpu, "GPU")
    tf.config.experimental.set_memory_growth(gpu, True)
    return tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name)
