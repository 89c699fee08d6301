"""Marks every test of this folder `unit` and keeps TensorFlow and BLAS to one thread here."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
import signal
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

_BEFORE_IMPORT = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
}

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
"""Those that a job handles."""

for _name, _value in _BEFORE_IMPORT.items():
    os.environ.setdefault(_name, _value)

# A busy machine must not fail a test, and a run must not depend on what an earlier one found.
settings.register_profile("unit", deadline=None, derandomize=True, database=None)
settings.load_profile("unit")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the tests below this folder; the hook sees those of the whole session."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.unit)


@contextlib.contextmanager
def _kept_signal_handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (*SIGNALS, signal.SIGPIPE)}
    try:
        yield
    finally:
        signal.set_wakeup_fd(-1)
        for number, handler in before.items():
            signal.signal(number, handler)


@pytest.fixture(autouse=True)
def _signal_handlers_as_before() -> Iterator[None]:
    """Undoes what a program that runs in a test's process installs."""
    with _kept_signal_handlers():
        yield


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[object]) -> Generator[None, object, object]:
    """Undoes, too, what one installs that runs in a fixture of a module or of the session."""
    with contextlib.nullcontext() if fixturedef.scope == "function" else _kept_signal_handlers():
        return (yield)


@pytest.fixture(scope="session")
def compile_kernels() -> Callable[..., None]:
    """Returns the build's own function."""
    path = Path(__file__).parents[2] / "packaging" / "compile_kernels.py"
    spec = importlib.util.spec_from_file_location("compiling", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    compiling: Callable[..., None] = module.compile_kernels
    return compiling


@pytest.fixture(scope="session")
def narrow_kernels(compile_kernels: Callable[..., None], tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """Returns the kernels as a processor without AVX-512 runs them."""
    from hvd_dqn.native.library import FOLDER, load_library

    library = tmp_path_factory.mktemp("narrow") / "narrow.so"
    compile_kernels(FOLDER, library, "-DNO_AVX512")
    return load_library(library)
