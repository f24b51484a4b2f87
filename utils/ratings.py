"""Ratings files of every format, read fast and with errors named by line."""

import csv
import io
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from utils.files import UserError, note
from utils.textfiles import Header, check_header, find_header, first_line, lines_of, note_on_cut, read_utf8
from utils.times import is_number, is_time, odd_times, seconds

# Column names, as `textfiles.plain` writes them, and ours.
RATING_COLUMNS = {
    "userid": "user",
    "user": "user",
    "movieid": "movie",
    "movie": "movie",
    "itemid": "movie",
    "item": "movie",
    "rating": "rating",
    "score": "rating",
    "timestamp": "time",
    "time": "time",
    "date": "time",
    "datetime": "time",
}
FIELDS = ("user", "movie", "rating", "time")
MANY_LOWEST = 0.1  # share above which a lowest rating may mean "not rated"


@dataclass(frozen=True)
class _Layout:
    """The fields of a ratings file, and how they are separated; without a header, they are the first of `FIELDS`."""

    header: Header | None
    separator: str
    names: list[str]


def read_ratings(path: Path, encoding: str | None = None, needed: Sequence[str] = ("user", "movie")) -> pd.DataFrame:
    """Read one ratings file; its format is recognised from its first line, so that `u1.base` works as well.

    Args:
        needed: the columns that a file with a header must have

    Returns:
        a table with the columns user and movie (categories, as written) and, where the file has them, rating (float32)
        and time (int64, seconds since 1970)

    Raises:
        UserError: a line is not a rating; names file, line and field.
    """
    content = read_utf8(path, encoding)
    note_on_cut(path, content)
    layout = _layout(path, first_line(content), needed)
    table = _parse(content, layout)
    if table is None or (row := _first_wrong(table)) is not None:
        raise _blame(path, content, layout, None if table is None else row)
    if table.empty:
        raise UserError(f"{path} holds no ratings: give a file with at least one.")
    if "time" in table:
        _refuse_cut_time(path, content, layout)
        table["time"] = seconds(path, table["time"], 1 + _n_header(layout))
    if "rating" in table:
        _note_on_ratings(path, table["rating"])
    else:
        note(f"{path} has no column for ratings: its lines count as choices.")
    return table


def _layout(path: Path, first: str, needed: Sequence[str]) -> _Layout:
    """The layout, from the first line.

    Raises:
        UserError: the line fits no format.
    """
    if header := find_header(first, RATING_COLUMNS):
        check_header(path, first, header, RATING_COLUMNS, needed)
        return _Layout(header, header.separator, header.names)
    for separator in ("::", "\t"):  # the formats of MovieLens 1M and 100K, which have no header
        if (n := first.count(separator) + 1) in (3, 4):
            return _Layout(None, separator, list(FIELDS[:n]))
    raise UserError(
        f"{path}, line 1: {first[:80]!r} begins no known ratings format: put a header above the lines, such as "
        "userId,movieId,rating,timestamp, or write user::movie::rating::time or these four separated by tabs."
    )


def _n_header(layout: _Layout) -> int:
    return int(layout.header is not None)


def _parse(content: bytes, layout: _Layout) -> pd.DataFrame | None:
    """The table, with times as numbers or else as strings; None if a line has other fields."""
    has_quotes = layout.header is not None and layout.header.has_quotes
    options = {
        "sep": layout.separator,
        "names": layout.names,
        "header": 0 if layout.header else None,
        "index_col": False,
        "quoting": csv.QUOTE_MINIMAL if has_quotes else csv.QUOTE_NONE,
        "skip_blank_lines": False,
        "keep_default_na": False,
        "na_values": [""],
        "encoding": "utf-8",
        "float_precision": "legacy",  # pandas' default one crashes on a number such as 1e999999999999
    }
    if layout.separator == "::":  # split at ":", every second field is empty; the fast parser reads that
        options |= {"sep": ":", "usecols": [0, 2, 4, 6][: len(layout.names)]}
    for time_type in (np.float64, "category"):
        types = dict.fromkeys(layout.names, "category") | {"rating": np.float32, "time": time_type}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", pd.errors.ParserWarning)  # more fields than the header names
                warnings.simplefilter("ignore", RuntimeWarning)  # numbers too large for their type: see _first_wrong
                table = pd.read_csv(io.BytesIO(content), dtype=types, **options)
            return table[[name for name in FIELDS if name in layout.names]]
        except (ValueError, OverflowError, pd.errors.ParserWarning):  # pandas' ParserError is a ValueError
            continue
    return None


def _first_wrong(table: pd.DataFrame) -> int | None:
    """The first row with a missing or infinite value, or a string among the times that is not a date."""
    wrong = table.isna().any(axis=1).to_numpy()
    for name in ("rating", "time"):
        if name in table and table[name].dtype.kind == "f":
            wrong = wrong | ~np.isfinite(table[name].to_numpy())
        elif name in table:
            wrong = wrong | odd_times(table[name].cat.categories)[table[name].cat.codes.to_numpy()]
    return int(np.argmax(wrong)) if wrong.any() else None


def _blame(path: Path, content: bytes, layout: _Layout, row: int | None) -> UserError:
    """The error of a row or, if nothing could be parsed, of the first line that is not a rating."""
    lines, skipped = lines_of(content), _n_header(layout)
    for number in range(skipped + 1, len(lines) + 1) if row is None else [row + skipped + 1]:
        reason = _fault(lines[number - 1], layout)
        if reason or row is not None:
            reason = reason or "its time is not written as in the other lines: write all times in one way"
            return UserError(f"{path}, line {number}: {lines[number - 1][:80]!r}: {reason}.")
    return UserError(f"{path} is not a readable ratings file: compare it with the formats in docs/usage.md.")


def _fault(line: str, layout: _Layout) -> str | None:
    """What is wrong with a line, and the remedy."""
    try:
        values = next(layout.header.fields([line]))[1] if layout.header else line.split(layout.separator)
    except StopIteration:
        return "the line is blank: delete it"
    except csv.Error as error:
        return f"{error}: correct that line"
    if len(values) != len(layout.names):
        return f"there are {len(values)} fields instead of {len(layout.names)} ({', '.join(layout.names)}): correct it"
    fields = dict(zip(layout.names, values, strict=True))
    for name in (name for name in FIELDS if name in fields):
        value = fields[name]
        if not value.strip():
            return f"the {name} is missing: add it, or delete that line"
        if name == "rating" and not is_number(value):
            remedy = "write it with a decimal point" if re.fullmatch(r"-?\d+,\d+", value) else "correct it"
            return f"the rating {value[:40]!r} is not a number: {remedy}"
        if name == "time" and not is_time(value):
            return f"the time {value[:40]!r} is neither a number nor a date such as 1997-11-14 20:36:34: correct it"
    return None


def _refuse_cut_time(path: Path, content: bytes, layout: _Layout) -> None:
    """Refuse a last line without a line end whose time is shorter than the others: it was cut off inside it."""
    if content.endswith(b"\n") or layout.names[-1] != "time":
        return
    lines = lines_of(content)
    *others, last = (len(line.rsplit(layout.separator, 1)[-1]) for line in lines[_n_header(layout) :])
    if others and last < min(others):
        raise UserError(
            f"{path}, line {len(lines)}: the last line is cut off inside its time: get the file again, or delete it."
        )


def _note_on_ratings(path: Path, rating: pd.Series) -> None:
    """Say if a value may mean "no rating": 0 or -1 with few just above it, or one far from the others."""
    values = np.unique(rating)
    if len(values) < 3:
        return
    low, high = values[0], values[-1]
    share, near = (rating == low).mean(), ((rating > low) & (rating <= low + (high - low) / 4)).mean()
    if low in (0, -1) and share > MANY_LOWEST and near < share / 2:
        note(
            f"{path}: {share:.0%} of the ratings are {low:g}, and few are just above it: if {low:g} means that a movie "
            "was not rated, delete those lines, which otherwise count as the worst."
        )
    gaps = np.diff(values)
    if gaps.max() > (high - low) / 2:
        k = int(np.argmax(gaps))
        note(
            f"{path}: the ratings are from {low:g} to {high:g}, with none between {values[k]:g} and {values[k + 1]:g}: "
            "if those beyond the gap are not ratings, delete them, as the lowest and the highest set the scale."
        )
