"""Runs train.py on ranks of which one, $HVD_DQN_TEST_WITHOUT_LIBRARY, finds no compiled library on its host."""

from __future__ import annotations

import importlib.util
import os
import runpy
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

from hostile_envs import own_rank

if own_rank() == int(os.environ["HVD_DQN_TEST_WITHOUT_LIBRARY"]):
    find_spec = importlib.util.find_spec

    def without_library(name: str, *arguments: Any) -> ModuleSpec | None:
        """Finds everything else."""
        return None if name == "_hvd_dqn_kernels" else find_spec(name, *arguments)

    importlib.util.find_spec = without_library  # type: ignore[assignment]

runpy.run_path(str(Path(__file__).resolve().parents[3] / "train.py"), run_name="__main__")
