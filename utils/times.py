"""Turn the times in files (dates, or numbers in some unit) into seconds since 1970."""

import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from utils.files import UserError, note

UNITS = {"seconds": 1, "milliseconds": 10**3, "microseconds": 10**6, "nanoseconds": 10**9}
FIRST, LATEST = 10**8, 4 * 10**9  # seconds since 1970: plausible times, from 1973 to 2096
FIRST_FINE = 8 * 10**8  # 1995: the earliest time in milliseconds or finer units
# Dates as whole numbers, such as 19971114 and 19971114203634: their limits and their format.
WRITTEN_DATES = [(1800_00_00, 2200_00_00, "%Y%m%d"), (1800 * 10**10, 2200 * 10**10, "%Y%m%d%H%M%S")]


def seconds(path: Path, time: pd.Series, first: int) -> np.ndarray:
    """Times as seconds since 1970, int64: the whole column decides whether they are dates, or in which unit.

    Args:
        time: finite numbers or, as categories, dates
        first: number of the line of the first time

    Raises:
        UserError: they are in several units, or in no known one.
    """
    if time.dtype.kind != "f":
        note(f"{path}: the times are dates, and are read as UTC unless they name a time zone.")
        return _since_1970(_dates(time.cat.categories))[time.cat.codes.to_numpy()]
    time = time.to_numpy()
    if (dates := _written_dates(time)) is not None:
        note(f"{path}: the times are dates such as {time[0]:.0f}.")
        return _since_1970(dates)
    unit = _unit(path, time, first)
    if unit != "seconds":
        note(f"{path}: the times are in {unit} since 1970.")
    return (time // UNITS[unit]).astype(np.int64)


def odd_times(written: pd.Index) -> np.ndarray:
    """Which strings are not dates or, if most are numbers, not numbers, bool [n]."""
    numeric = np.array([is_number(str(word)) for word in written])
    return ~numeric if numeric.mean() > 0.5 else np.array(_dates(written).isna())


def is_time(text: str) -> bool:
    """Whether it is a number or a date."""
    return is_number(text) or not pd.isna(_dates([text])[0])


def is_number(text: str) -> bool:
    """Whether it is a number in plain digits; Python itself would also accept 1_000 and other scripts' digits."""
    is_written = re.fullmatch(r"\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*", text)
    return bool(is_written) and bool(np.isfinite(np.float32(text)))


def _written_dates(time: np.ndarray) -> pd.DatetimeIndex | None:
    """Whole numbers as dates; None if one of them is not a date."""
    for least, most, form in WRITTEN_DATES:
        if ((time > least) & (time < most)).all():
            dates = pd.to_datetime(pd.Index(time.astype(np.int64)).astype(str), format=form, utc=True, errors="coerce")
            return None if dates.isna().any() else dates
    return None


def _unit(path: Path, time: np.ndarray, first: int) -> str:
    """The unit that makes the median a plausible time, if it makes all others plausible as well."""
    middle = np.median(np.abs(time))
    unit = next((name for name, n in UNITS.items() if middle < LATEST * n), "nanoseconds")
    n = UNITS[unit]
    least = FIRST_FINE * n if unit != "seconds" else FIRST if middle >= FIRST else 0
    wrong = (np.abs(time) >= LATEST * n) | ((time > 0) & (time < least))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise UserError(
            f"{path}, line {row + first}: the time {time[row]:.0f} is not in {unit} since 1970, as most others "
            "seem to be: write all alike, as seconds since 1970 or as dates such as 1997-11-14 20:36:34."
        )
    if 0 < middle < FIRST:
        note(f"{path}: the times, up to {time.max():.0f}, count as seconds: if they are days or years, write dates.")
    return unit


def _dates(written: Iterable) -> pd.DatetimeIndex:
    """ISO dates, with or without a time of day, in UTC; missing if they are not dates."""
    words = pd.Index([str(word) for word in written])
    return pd.to_datetime(words, format="ISO8601", utc=True, errors="coerce")


def _since_1970(dates: pd.DatetimeIndex) -> np.ndarray:
    return ((dates - pd.Timestamp(0, tz="UTC")) // pd.Timedelta(seconds=1)).to_numpy(np.int64)
