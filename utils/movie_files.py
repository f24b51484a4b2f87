"""Movie and user files of every format, read as tables of strings with years and genres."""

import csv
from pathlib import Path

import numpy as np
import pandas as pd

from utils.columns import IDS, read_table
from utils.files import UserError
from utils.movies import split_genres, years
from utils.textfiles import check_header, find_header, lines_of, note_on_cut, read_utf8, refuse_repeated

# Column names, as `textfiles.plain` writes them, and ours.
MOVIE_COLUMNS = {
    "movieid": "movie",
    "movie": "movie",
    "itemid": "movie",
    "item": "movie",
    "title": "title",
    "movietitle": "title",
    "name": "title",
    "year": "year",
    "releaseyear": "year",
    "releasedate": "year",
    "genres": "genres",
    "genre": "genres",
    "class": "genres",
}
USER_COLUMNS = {
    "userid": "user",
    "user": "user",
    "gender": "gender",
    "age": "age",
    "occupation": "occupation",
    "zipcode": "zip",
    "zip": "zip",
}


def read_movies(path: Path, encoding: str | None = None) -> pd.DataFrame:
    """The movies of a CSV file: movie, title, year and genres as in `readers.RawData`; other columns are ignored.

    Raises:
        UserError: the file is missing or damaged, or lacks a column of ids or titles.
    """
    known = {name: ours for name, ours in MOVIE_COLUMNS.items() if name not in ("genre", "class")}
    header, rows = read_table(path, known | IDS, encoding)
    table = pd.DataFrame(rows, columns=header.names).rename(columns={IDS["movieid"]: "movie"})
    if "title" not in table:
        raise UserError(f"{path} has no column of titles: call that column title.")
    table["movie"] = table["movie"].str.strip()
    return _movies(path, table[[name for name in ("movie", "title", "year", "genres") if name in table]].copy())


def required(path: Path) -> Path:
    """The path, if the file exists; else UserError."""
    if not path.is_file():
        raise UserError(f"{path} is missing: put it beside the ratings file.")
    return path


def _table(path: Path, separator: str, names: list[str], encoding: str | None) -> pd.DataFrame:
    """A text file of MovieLens 100K or 1M, which has no header, as strings."""
    content = read_utf8(path, encoding, or_latin_1=True)
    note_on_cut(path, content)
    lines = lines_of(content)
    return _frame(path, [(number, line.split(separator)) for number, line in enumerate(lines, start=1)], names)


def _table_with_header(path: Path, columns: dict[str, str], needed: list[str], encoding: str | None) -> pd.DataFrame:
    """A text file with a header, as strings."""
    content = read_utf8(path, encoding)
    note_on_cut(path, content)
    lines = lines_of(content)
    header = check_header(path, lines[0], find_header(lines[0], columns), columns, needed)
    try:
        (_, _), *rows = header.fields(lines)
    except csv.Error as error:
        raise UserError(f"{path}: {error}: correct the quotes in that file.") from error
    return _frame(path, rows, header.names)


def _frame(path: Path, rows: list[tuple[int, list[str]]], names: list[str]) -> pd.DataFrame:
    """Rows with their line numbers as a table; every row must have exactly the fields `names`."""
    for number, row in rows:
        if len(row) != len(names):
            raise UserError(
                f"{path}, line {number}: {' '.join(row)[:80]!r} has {len(row)} fields instead of {len(names)} "
                f"({', '.join(names)[:200]}): correct that line."
            )
    return pd.DataFrame([row for _, row in rows], columns=names)


def movies_100k(path: Path, encoding: str | None) -> pd.DataFrame:
    genres = required(path.parent / "u.genre")
    genre_names = [line.split("|")[0] for line in lines_of(read_utf8(genres, encoding, or_latin_1=True)) if "|" in line]
    refuse_repeated(genres, genre_names)
    table = _table(path, "|", ["movie", "title", "date", "video_date", "url", *genre_names], encoding)
    flags = table[genre_names].to_numpy() == "1"
    written = pd.Series(["|".join(genre_names[i] for i in np.flatnonzero(row)) for row in flags])
    return _movies(path, table.assign(genres=written)[["movie", "title", "genres"]])


def movies_dat(path: Path, encoding: str | None) -> pd.DataFrame:
    return _movies(path, _table(path, "::", ["movie", "title", "genres"], encoding))


def movies_csv(path: Path, encoding: str | None) -> pd.DataFrame:
    return _movies(path, _table_with_header(path, MOVIE_COLUMNS, ["movie", "title"], encoding))


def movies_atomic(path: Path, encoding: str | None) -> pd.DataFrame:
    table = _table_with_header(path, MOVIE_COLUMNS, ["movie", "title"], encoding)
    return _movies(path, table, genre_separator=" ")


def _movies(path: Path, table: pd.DataFrame, genre_separator: str | None = None) -> pd.DataFrame:
    """The movies table; a year from another column is put after the title, if there is one, as MovieLens writes it."""
    if "genres" not in table:
        table["genres"] = ""
    table["year"] = years(path, table["title"], table.get("year"))
    undated = table["year"].notna() & years(path, table["title"]).isna() & (table["title"].str.strip() != "")
    table["title"] = table["title"].mask(undated, table["title"] + " (" + table["year"].astype(str) + ")")
    table["genres"] = split_genres(path, table["genres"], genre_separator)
    return table[["movie", "title", "year", "genres"]]


def users_100k(path: Path, encoding: str | None) -> pd.DataFrame:
    return _table(path, "|", ["user", "age", "gender", "occupation", "zip"], encoding)


def users_dat(path: Path, encoding: str | None) -> pd.DataFrame:
    return _table(path, "::", ["user", "gender", "age", "occupation", "zip"], encoding)


def users_with_header(path: Path, encoding: str | None) -> pd.DataFrame:
    return _table_with_header(path, USER_COLUMNS, ["user"], encoding)
