"""Genres and release years, read from the various notations of movies files."""

import ast
import json
import re
from collections import Counter
from pathlib import Path

import pandas as pd

from utils.files import note

NO_GENRE = ("(no genres listed)", "unknown", "", "\\n", "nan", "none", "null", "n/a", "na", "-")
YEAR_AT_END = r"\(([0-9]{4})\)\s*$"  # of a title
# 1995, 1995.0, 19951030, 1995-10-30 or 30-Oct-1995
YEAR_OF_DATE = r"^\s*(?:([0-9]{4})(?:[0-9]{4}|\.0*)?(?:[-/ T].*)?|.*[-/. ]([0-9]{4}))\s*$"
MAX_GENRES = 50


def split_genres(path: Path, written: pd.Series, separator: str | None = None) -> pd.Series:
    """Each movie's genres as a tuple, each in one spelling; the whole column decides how they are separated.

    Accepted are JSON and Python lists, of names or of objects with a name, and names separated by the first of `|`, `;`
    and `,` that is in the column or, if none is, by `separator`. A note says if the result does not look like genres.
    """
    lists = [_as_list(text) for text in written]
    if any(found is None for found in lists):
        separator = next((one for one in "|;," if written.str.contains(one, regex=False).any()), separator)
        lists = [
            found if found is not None else text.split(separator) if separator else [text]
            for found, text in zip(lists, written, strict=True)
        ]
    names = [[name.strip(" \"'") if name.strip()[:1] in "\"'" else name.strip() for name in found] for found in lists]
    names = [[name for name in found if name.lower() not in NO_GENRE] for found in names]
    spelling = _one_spelling(Counter(name for found in names for name in found))
    if len(spelling) > MAX_GENRES:
        example = max(spelling.values(), key=len)
        note(
            f"{path}: {len(spelling):,} different genres for {len(written):,} movies, such as {example[:80]!r}: if "
            "one holds several, separate them by |."
        )
    if broken := [found[0] for found in names if found and found[0].startswith(("[", "{"))]:
        note(f"{path}: {len(broken):,} lists of genres can't be read, such as {broken[0][:80]!r}: separate them by |.")
    return pd.Series([tuple(dict.fromkeys(spelling[name.lower()] for name in found)) for found in names], written.index)


def _as_list(text: str) -> list[str] | None:
    """The names of a list in JSON or Python; None for other text."""
    if not re.fullmatch(r"\s*([\[({]).*[\])}]\s*", text, re.DOTALL) or text.strip().lower() in NO_GENRE:
        return None
    for read in (json.loads, ast.literal_eval):
        try:
            found = read(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        found = [found] if isinstance(found, dict | str) else found
        if not isinstance(found, list | tuple | set):
            return None
        return [str(one["name"]) if isinstance(one, dict) and "name" in one else str(one) for one in found]
    return None


def _one_spelling(counts: Counter[str]) -> dict[str, str]:
    """The most frequent spelling of each name, in ties a capitalised one, by the name in lower case."""
    return {name.lower(): name for name in sorted(counts, key=lambda name: (counts[name], name != name.lower()))}


def years(path: Path, titles: pd.Series, dates: pd.Series | None = None) -> pd.Series:
    """Release years, Int16, missing where unknown: the one at the end of the title, or else that of the date.

    A note counts the dates in which no year is found.
    """
    found = pd.to_numeric(titles.str.extract(YEAR_AT_END, expand=False))
    if dates is not None:
        both = dates.str.extract(YEAR_OF_DATE)
        of_date = pd.to_numeric(both[0].where(both[0].notna(), both[1]))
        found = found.fillna(of_date.where(of_date.between(1800, 2200)))
        unread = dates[found.isna() & (dates.str.strip() != "")]
        if len(unread):
            note(
                f"{path}: {len(unread):,} of {len(dates):,} years can't be read, such as {unread.iloc[0][:40]!r}: "
                "write them as 1995 or 1995-10-30; these movies count as undated."
            )
    return found.astype("Int16")
