"""Runs train.py on a machine that TensorFlow believes to have GPUs.

    gpus_train.py COUNTS ARGUMENTS...

COUNTS are the numbers of GPUs that the ranks see, such as 1,1. Nothing can be computed on them. As with real ones, they
cannot be pinned once TensorFlow has computed anything.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import tensorflow as tf
from hostile_envs import own_rank
from tensorflow.python.eager import context


def _set_visible(devices: Any, kind: str) -> None:
    if context.context()._initialized:
        raise RuntimeError("Visible devices cannot be modified after being initialized")
    print(f"uses {getattr(devices, 'name', 'no GPU')}", flush=True)


def main() -> None:
    """Runs on every rank."""
    counts, *arguments = sys.argv[1:]
    count = int(counts.split(",")[own_rank()])
    gpus = [SimpleNamespace(name=f"/physical_device:GPU:{k}") for k in range(count)]
    listed: Any = tf.config.list_physical_devices
    tf.config.list_physical_devices = lambda kind=None: gpus if kind == "GPU" else listed(kind)
    tf.config.set_visible_devices = _set_visible

    tf.config.experimental.set_memory_growth = lambda gpu, grows: None
    tf.config.experimental.get_device_details = lambda gpu: {"device_name": "a GPU"}
    script = str(Path(__file__).resolve().parents[3] / "train.py")
    sys.argv = [script, *arguments]
    runpy.run_path(script, run_name="__main__")


main()
