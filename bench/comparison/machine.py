"""The facts that belong beside every number: machine, load, Python and package versions."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

OUR_PACKAGES = ["tensorflow", "horovod", "numpy", "gymnasium", "ale-py", "minatar", "box2d"]
PEER_PACKAGES = [
    *["stable-baselines3", "sbx-rl", "tianshou", "torchrl", "ray", "skrl", "cleanrl", "rejax"],
    *["torch", "tensordict", "jax", "jaxlib", "flax", "numpy", "gymnasium", "envpool", "gymnax"],
    *["ale-py", "minatar", "box2d"],
]

_ASK = """
import importlib.metadata, json, platform, sys
def version(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
print(json.dumps({"python": platform.python_version(), **{name: version(name) for name in sys.argv[1:]}}))
"""


def machine() -> dict[str, Any]:
    """Returns CPU, cores, kernel and the load before anything was started."""
    model = next(
        (line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), ":"
    )
    return {
        "cpu": model.partition(":")[2].strip() or platform.processor(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "load_average": os.getloadavg(),
    }


def versions(python: str, packages: list[str]) -> dict[str, str]:
    """Asks a Python for its own and the packages' versions; a package that is absent is left out.

    Raises:
      OSError, subprocess.CalledProcessError: if this Python cannot be started.
    """
    answer = subprocess.run([python, "-c", _ASK, *packages], check=True, capture_output=True, text=True)
    return {name: version for name, version in json.loads(answer.stdout).items() if version is not None}
