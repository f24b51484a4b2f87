"""Ratings files of every format, read fast and with faults named by line; text files of separated fields."""

import csv
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from utils.files import UserError

# Column names of MovieLens's CSV files and RecBole's typed headers, in lower case, and ours.
RATING_COLUMNS = {
    "userid": "user",
    "user_id": "user",
    "movieid": "movie",
    "item_id": "movie",
    "rating": "rating",
    "timestamp": "time",
}


LATEST = 2.0**53  # seconds; beyond it, a float is no exact whole number


def read_ratings(path: Path) -> pd.DataFrame:
    """Read one ratings file; its format is recognised from its first line, so that `u1.base` works as well.

    Returns a table with the columns user, movie, rating and, where the file has it, time.

    Raises:
        UserError: a line is not a rating; names file and line.
    """
    first = first_line(path)
    refuse_nul_bytes(path, path.read_bytes())
    names = ["user", "movie", "rating", "time"]
    layout: dict[str, Any] = {"sep": "\t", "header": None, "quoting": csv.QUOTE_NONE}
    if first.count("::") in (
        2,
        3,
    ):  # with ":" as the separator every second field is empty, and the fast parser can read it
        names = names[: first.count("::") + 1]
        layout.update(sep=":", usecols=[0, 2, 4, 6][: len(names)])
    elif ":token" in first:
        names = header_names(path, first, "\t", RATING_COLUMNS)
        layout.update(header=0)
    elif "userid" in first.lower():
        names = header_names(path, first, ",", RATING_COLUMNS)
        layout.update(sep=",", header=0, quoting=csv.QUOTE_MINIMAL)
    elif first.count("\t") in (2, 3):
        names = names[: first.count("\t") + 1]
    else:
        raise UserError(
            f"{path}, line 1: {first[:80]!r} starts no known format of ratings: use user::movie::rating::time, "
            "a header userId,movieId,rating,timestamp, a RecBole header or columns separated by tabs."
        )
    return _checked(path, _parse(path, layout, names), starts_at=1 if layout["header"] is None else 2)


def _parse(path: Path, layout: dict[str, Any], names: list[str]) -> pd.DataFrame:
    """Parse with integer ids, which is fast, or else with ids as strings."""
    for id_type in (np.int64, str):
        types = {"user": id_type, "movie": id_type, "rating": np.float32, "time": np.float64}
        options = {"dtype": types, "skip_blank_lines": False, "keep_default_na": False, "na_values": [""]}
        options["float_precision"] = "legacy"  # pandas' default one crashes on a number such as 1e999999999999
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", pd.errors.ParserWarning)  # more fields than the header names
                warnings.simplefilter("ignore", RuntimeWarning)  # numbers too large for their type: see _checked
                table = pd.read_csv(path, names=names, encoding="utf-8-sig", index_col=False, **options, **layout)
            return table[[name for name in types if name in names]]
        except (ValueError, OverflowError, pd.errors.ParserWarning):  # pandas' ParserError is a ValueError
            continue
    raise _blame(path, layout, names)


def _blame(path: Path, layout: dict[str, Any], names: list[str]) -> UserError:
    """Find the line that the fast parser choked on."""
    separator = "::" if layout["sep"] == ":" else layout["sep"]
    numeric = [names.index(name) for name in ("rating", "time") if name in names]
    skipped = 0 if layout["header"] is None else 1
    for number, line in enumerate(lines(path)[skipped:], start=1 + skipped):
        values = line.split(separator)
        if len(values) != len(names) or not all(_is_number(values[i]) for i in numeric):
            return _bad_line(path, number, line)
    return UserError(f"{path} is not a readable ratings file: compare it with the formats in the README.")


def _is_number(text: str) -> bool:
    try:
        return np.isfinite(float(text))
    except ValueError:
        return False


def _bad_line(path: Path, number: int, line: str) -> UserError:
    return UserError(f"{path}, line {number}: {line[:80]!r} is not a rating: correct or delete that line.")


def _checked(path: Path, table: pd.DataFrame, starts_at: int) -> pd.DataFrame:
    """Refuse missing and negative values, and make times whole numbers."""
    if table.empty:
        raise UserError(f"{path} holds no ratings: give a file with at least one.")
    rating = table["rating"].to_numpy()
    wrong = ~np.isfinite(rating) | (rating < 0) | table.isna().any(axis=1).to_numpy()
    if "time" in table:
        wrong |= ~(table["time"].abs() < LATEST).to_numpy()
    if wrong.any():
        row = int(np.argmax(wrong))
        line = "\t".join(str(value) for value in table.iloc[row])
        raise _bad_line(path, row + starts_at, line)
    if not rating.max() > 0:
        raise UserError(f"{path}: no rating is above 0: say how much each movie was liked.")
    if "time" in table:
        table["time"] = table["time"].astype(np.int64)
    return table


# --- text files ----------------------------------------------------------------------------------


def read_text(path: Path) -> str:
    """A text file in UTF-8 or, where it is not that, in latin-1, as ML-100K and ML-1M are."""
    data = path.read_bytes()
    refuse_nul_bytes(path, data)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def refuse_nul_bytes(path: Path, content: bytes) -> None:
    """NUL bytes are holes that a power cut leaves in a file, or another encoding; parsers read values beside them."""
    if b"\0" in content:
        number = content[: content.index(b"\0")].count(b"\n") + 1
        raise UserError(
            f"{path}, line {number}: there are NUL bytes, as a cut write or UTF-16 leaves them: get the file anew, "
            "or save it as UTF-8."
        )


def lines(path: Path) -> list[str]:
    """The lines of a text file; unlike str.splitlines, control characters inside a title do not end a line."""
    found = read_text(path).replace("\r\n", "\n").split("\n")
    return found[:-1] if found[-1] == "" else found


def first_line(path: Path) -> str:
    """The line that tells a file's format.

    Raises:
        UserError: the file is missing or empty.
    """
    if not path.is_file():
        raise UserError(f"There is no file {path}: check the path.")
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        first = file.readline().strip("\r\n")
    if not first.strip():
        raise UserError(f"{path} is empty or starts with an empty line: a ratings file has a rating in each line.")
    return first


def header_names(path: Path, header: str, separator: str, columns: dict[str, str]) -> list[str]:
    """The columns of a header (`userId` or `item_id:token`) under our names; unknown ones keep their own.

    Raises:
        UserError: a column is missing that such a file needs.
    """
    written = [column.split(":")[0].strip('" ') for column in header.split(separator)]
    names = [columns.get(column.lower(), column) for column in written]
    needed = [name for name in ("user", "movie", "rating", "title") if name in columns.values()]
    if missing := [name for name in needed if name not in names]:
        raise UserError(f"{path}, line 1: the header {header[:80]!r} has no column for {', '.join(missing)}: add it.")
    refuse_repeated(path, names)
    return names


def refuse_repeated(path: Path, names: list[str]) -> None:
    """Which of two columns of the same meaning should count can't be known."""
    if repeated := [name for name in names if names.count(name) > 1]:
        raise UserError(f"{path} has two columns for {repeated[0][:80]!r}: keep one.")
