"""Price files: the two that gym-anytrading ships, or a CSV file of your own, checked line by line."""

from __future__ import annotations

import csv
import functools
import importlib.metadata
import importlib.util
import math
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

PACKAGED = {"forex": "FOREX_EURUSD_1H_ASK.csv", "stocks": "STOCKS_GOOGL.csv"}
"""Files of gym-anytrading 2.0.0: EUR/USD, ask prices by the hour, 2017; Alphabet, by the day, 2009-05 to 2018-08."""
FORM = "a CSV file needs the columns Time (or Date), Open and Close, oldest line first"
_DAY = np.timedelta64(1, "D")
_HOUR = np.timedelta64(1, "h")
_MOST_CLOSED_WEEKDAYS = 2
"""Weekdays in a row on which an exchange may be closed, in a file of daily prices."""


class Bars(NamedTuple):
    """Prices of T bars, oldest first."""

    times: np.ndarray
    """datetime64[s] [T], start of each bar."""
    open: np.ndarray
    """float64 [T], first price of each bar."""
    close: np.ndarray
    """float64 [T], last price of each bar."""


@functools.cache
def load(name: str) -> Bars:
    """Reads a price file.

    Args:
      name: `forex`, `stocks`, or the path of a CSV file.

    Raises:
      ValueError: if the file cannot be read, or a line is malformed, out of order, double, not positive or after a gap;
        with the file, the line and the remedy.
    """
    path = packaged(name) if name in PACKAGED else Path(name).expanduser()
    times, prices, lines = [], [], []
    try:
        with path.open(newline="") as file:
            rows = csv.DictReader(file)
            column = next((own for own in ("Time", "Date") if own in (rows.fieldnames or ())), "")
            if not column or not {"Open", "Close"} <= set(rows.fieldnames or ()):
                raise ValueError(f"{path}, line 1: the columns are {rows.fieldnames}; {FORM}")
            for row in rows:
                lines.append(rows.line_num)
                times.append(_time(row[column], f"{path}, line {lines[-1]}"))
                prices.append([_price(row[own], own, f"{path}, line {lines[-1]}") for own in ("Open", "Close")])
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} cannot be read ({error}): give forex, stocks or a path; {FORM}") from None
    if len(times) < 2:
        raise ValueError(f"{path} has {len(times)} lines of prices: at least 2 are needed")
    stamps, found = np.array(times, "datetime64[s]"), np.array(prices, np.float64)
    _check_order(stamps, path, lines)
    return Bars(stamps, found[:, 0], found[:, 1])


def packaged(name: str) -> Path:
    """Returns the path of a price file of gym-anytrading, which is not imported: that would load pandas.

    Raises:
      ValueError: if the package is not installed.
    """
    spec = importlib.util.find_spec("gym_anytrading")
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(
            f"the prices {name!r} are in gym-anytrading: make setup EXTRAS='trading', or "
            "pip install gym-anytrading==2.0.0"
        )
    return Path(spec.submodule_search_locations[0]) / "datasets" / "data" / PACKAGED[name]


def licence(name: str) -> str:
    """Returns one line about a price file of gym-anytrading: its name, the package's version, licence and copyright."""
    package = importlib.metadata.distribution("gym-anytrading")
    text = next((file.read_text() for file in package.files or () if file.name == "LICENSE"), "")
    holder = next((line for line in text.splitlines() if line.startswith("Copyright")), "")
    return f"{PACKAGED[name]} of gym-anytrading {package.version}, {package.metadata['License']} licence. {holder}"


def _time(text: str | None, place: str) -> np.datetime64:
    """Returns the time in `2017-12-29 21:00` or `29.12.2017 21:00:00.000`, to the second."""
    ordered = re.sub(r"^(\d{2})\.(\d{2})\.(\d{4})", r"\3-\2-\1", (text or "").strip()).replace(" ", "T")
    try:
        found = np.datetime64(ordered, "s")
    except ValueError:
        found = np.datetime64("NaT")
    if np.isnat(found):
        raise ValueError(f"{place}: {text!r} is no time: write it like 2017-12-29 21:00")
    return found


def _price(text: str | None, column: str, place: str) -> float:
    try:
        price = float(text or "")
    except ValueError:
        price = math.nan
    if not 0 < price < math.inf:
        raise ValueError(f"{place}: {column} is {text!r}, and a price is a positive number: correct or remove the line")
    return price


def _check_order(times: np.ndarray, path: Path, lines: list[int]) -> None:
    """Refuses times that do not rise, and gaps: more bars missing on trading days than a market's holidays explain.

    The bar is the commonest step between two lines. Markets are closed from Friday 21:00 to Sunday 23:00, on 25
    December and on 1 January; in a file of daily prices on up to two further weekdays in a row.
    """
    steps = np.diff(times)
    for index in np.flatnonzero(steps <= np.timedelta64(0, "s")):
        double = steps[index] == np.timedelta64(0, "s")
        raise ValueError(
            f"{path}, line {lines[index + 1]}: {times[index + 1]} "
            + ("is there twice: remove one of the two lines" if double else f"follows {times[index]}: sort the lines")
        )
    known, counts = np.unique(steps, return_counts=True)
    bar = known[counts.argmax()]
    allowed = _MOST_CLOSED_WEEKDAYS if bar >= _DAY else 0
    for index in np.flatnonzero(steps > bar):
        between = np.arange(times[index] + bar, times[index + 1], bar)
        missing = between[_open(between)]
        if len(missing) > allowed:
            raise ValueError(
                f"{path}, line {lines[index + 1]}: a gap; {len(missing)} bars are missing from {missing[0]} on: "
                "add them, or use the part of the file before or after"
            )


def _open(times: np.ndarray) -> np.ndarray:
    """Returns bool [T]: whether markets trade at these times."""
    days = times.astype("datetime64[D]")
    weekday, hour = (days.astype(int) + 3) % 7, (times - days) // _HOUR  # 1970-01-01 was a Thursday; Monday is 0
    weekend = (weekday == 5) | ((weekday == 4) & (hour >= 21)) | ((weekday == 6) & (hour < 23))
    in_year = (days - days.astype("datetime64[Y]")).astype(int)
    in_month = (days - days.astype("datetime64[M]")).astype(int)
    christmas = (times.astype("datetime64[M]").astype(int) % 12 == 11) & (in_month == 24)
    return ~(weekend | christmas | (in_year == 0))
