#!/usr/bin/env python
"""MovieLens 100k, read from a Python package that ships it: `python examples/movielens/ratings.py` downloads it.

The licence of the data forbids redistribution, so this repository has none of it.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

PACKAGE, VERSION = "recbole", "1.2.1"
WHEEL = Path(__file__).parents[2] / "runs" / "movielens" / f"{PACKAGE}-{VERSION}-py3-none-any.whl"
SHA256 = "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407"
FOLDER = "recbole/dataset_example/ml-100k/ml-100k"
LICENCE = """\
MovieLens 100k is data of the GroupLens research group, University of Minnesota. It may be used for research. Commercial
use and redistribution need the group's permission. Publications cite Harper and Konstan (2015), "The MovieLens
Datasets". The terms: https://files.grouplens.org/datasets/movielens/ml-100k-README.txt"""


class Ratings(NamedTuple):
    """All ratings, and what was rated."""

    users: np.ndarray  # int64 [N], from 0
    items: np.ndarray  # int64 [N], from 0
    ratings: np.ndarray  # float64 [N], 1 to 5
    titles: list[str]  # of each item


def read(wheel: Path = WHEEL) -> Ratings:
    """Reads the ratings.

    Args:
      wheel: the package's file, which `download` fetches.

    Raises:
      ValueError: if there is no such file, or it is another one.
    """
    if not wheel.is_file():
        raise ValueError(f"{wheel} does not exist: run `python {Path(__file__).absolute()}`, which downloads it")
    if hashlib.sha256(wheel.read_bytes()).hexdigest() != SHA256:
        raise ValueError(f"{wheel} is not {PACKAGE} {VERSION}: remove it, and download it again")
    with zipfile.ZipFile(wheel) as package:
        rows = np.loadtxt(io.BytesIO(package.read(f"{FOLDER}.inter")), skiprows=1)  # user, item, rating, time
        text = io.StringIO(package.read(f"{FOLDER}.item").decode())
    titles = [row[1] for row in csv.reader(text, delimiter="\t", quoting=csv.QUOTE_NONE)][1:]
    return Ratings(rows[:, 0].astype(np.int64) - 1, rows[:, 1].astype(np.int64) - 1, rows[:, 2], titles)


def download(wheel: Path = WHEEL) -> None:
    """Downloads the package with pip, without installing it or what it needs.

    Raises:
      SystemExit: if no pip is found, or it fails.
    """
    wheel.parent.mkdir(parents=True, exist_ok=True)
    own = subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True, check=False).returncode == 0
    pip = [sys.executable, "-m", "pip"] if own else [shutil.which("pip3") or shutil.which("pip") or ""]
    if not pip[0]:
        raise SystemExit(
            f"no pip was found: place {wheel.name} of https://pypi.org/project/{PACKAGE}/ in {wheel.parent}"
        )
    words = [*pip, "download", "--quiet", "--no-deps", "--dest", str(wheel.parent), f"{PACKAGE}=={VERSION}"]
    if subprocess.run(words, check=False).returncode:
        raise SystemExit(f"pip cannot download {PACKAGE} {VERSION}: place {wheel.name} in {wheel.parent}")


def main() -> None:
    """Downloads the data and prints its licence."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    print(LICENCE)
    if not WHEEL.is_file():
        download()
    print(f"{len(read().ratings):,} ratings in {WHEEL}")


if __name__ == "__main__":
    main()
