"""Compiles the C files of hvd_dqn when the package is installed: Hatchling calls it, for editable installs too."""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import subprocess
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCES = Path("hvd_dqn/native")
LIBRARY = Path("build/_hvd_dqn_kernels.so")
FLAGS = (
    *("-shared", "-fPIC", "-std=c11", "-O3", "-Wall", "-Wextra", "-Wno-psabi", "-mprefer-vector-width=512"),
    # The same bits on every processor: no multiplication is fused with an addition, but in products.c, where all are,
    # and a processor that cannot is left to TensorFlow. What the next two leave out is of no use here
    # (errno, floating-point exceptions) and bars vector instructions.
    *("-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"),
)
# Put before a function: compiled once per instruction set, of which the loader takes the widest that the processor has.
WIDEST = '__attribute__((target_clones("avx512f", "avx2", "default")))' if platform.machine() == "x86_64" else ""


class CompileKernels(BuildHookInterface):
    """Puts the library beside the package, where importlib finds it by name."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compiles and adds the library to what is installed."""
        del version
        root = Path(self.root)
        if not (root / SOURCES).exists():
            return  # the product works without its native learner
        compile_kernels(root / SOURCES, root / LIBRARY)
        build_data["pure_python"], build_data["infer_tag"] = False, True
        installed = {str(root / LIBRARY): LIBRARY.name}
        build_data["force_include"].update(installed)
        # Once this is not empty, an editable install ignores pyproject.toml's table: train.py stays beside the package.
        build_data["force_include_editable"].update(installed)


def compile_kernels(folder: Path, library: Path, *flags: str) -> None:
    """Compiles with $CC, or cc; the library answers with the digest of its sources.

    Args:
      folder: of the C files.
      library: the file to write.
      *flags: behind its own.

    Raises:
      RuntimeError: with the compiler's words, if it fails.
    """
    sources = sorted(folder.glob("*.[ch]"))
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
    compiler = shlex.split(os.environ.get("CC", "cc"))
    names = [f'-DSOURCE_DIGEST="{digest}"', f"-DWIDEST={WIDEST}"]
    units = [str(path) for path in sources if path.suffix == ".c"]
    words = [*compiler, *FLAGS, *names, *flags, "-o", str(library), *units, "-lm"]
    library.parent.mkdir(exist_ok=True)
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{shlex.join(words)} failed:\n{done.stderr}")
