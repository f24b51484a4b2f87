"""Readers: a data set's folder, whatever its format, becomes one small set of typed tables.

| files in the folder | format |
| --- | --- |
| u.data, u.item, u.user | MovieLens 100K |
| ratings.dat, movies.dat, users.dat | MovieLens 1M and 10M, fields separated by `::` |
| ratings.csv, movies.csv | MovieLens 20M, 25M, 32M, latest |
| *.inter, *.item, *.user | RecBole's atomic files; the way to bring one's own data |
"""

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from utils.files import UserError
from utils.ratings import first_line, header_names, lines, read_ratings, read_text, refuse_repeated

YEAR_AT_END = r"\((\d{4})\)\s*$"
NO_GENRE = ("(no genres listed)", "unknown", "")


@dataclass(frozen=True)
class MovieLens:
    """A data set as three tables. Ids are integers, or strings where the files' ids are not integers.

    ratings: user, movie, rating (float32) and, where the files have it, time (int64, seconds since 1970)
    movies: movie, title (as written, with its year), year (Int16, missing if unknown), genres (tuple of strings)
    users: user and whichever of gender, age, occupation and zip the files have (strings)
    """

    name: str
    ratings: pd.DataFrame
    movies: pd.DataFrame
    users: pd.DataFrame


def read_dataset(folder: Path) -> MovieLens:
    """Read the data set in `folder`.

    Raises:
        UserError: the folder is missing or of no known format, or a file is damaged; names file and line.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(
            f"There is no folder {folder}: download the data with python utils/download.py, "
            "or name the folder of your data with --data."
        )
    for mark, movies_file, read_movies, users_file, read_users in FORMATS:
        if ratings_file := next(iter(sorted(folder.glob(mark))), None):
            stem = ratings_file.stem  # RecBole names the files of one data set alike
            ratings = read_ratings(ratings_file)
            movies = read_movies(_required(folder / movies_file.replace("*", stem)))
            users_path = folder / users_file.replace("*", stem)
            users = read_users(users_path) if users_path.is_file() else pd.DataFrame({"user": []})
            return _joined(folder, ratings, movies, users)
    raise UserError(
        f"{folder} is no known data set: it needs u.data, ratings.dat, ratings.csv or a RecBole *.inter file."
    )


def _required(path: Path) -> Path:
    if not path.is_file():
        raise UserError(f"{path} is missing: put it beside the ratings file.")
    return path


def _joined(folder: Path, ratings: pd.DataFrame, movies: pd.DataFrame, users: pd.DataFrame) -> MovieLens:
    """One id type in all tables, and every rated movie in the movies table."""
    if ratings["movie"].dtype != movies["movie"].dtype:
        ratings["movie"], movies["movie"] = ratings["movie"].astype(str), movies["movie"].astype(str)
    if len(users) and ratings["user"].dtype != users["user"].dtype:
        ratings["user"], users["user"] = ratings["user"].astype(str), users["user"].astype(str)
    if unknown := sorted(set(ratings["movie"].unique()) - set(movies["movie"])):
        raise UserError(
            f"{folder}: the ratings name {len(unknown)} movies that the movies file lacks "
            f"({', '.join(str(movie)[:40] for movie in unknown[:5])}{', ...' if len(unknown) > 5 else ''}): "
            "add them to the movies file or remove their ratings."
        )
    return MovieLens(folder.resolve().name, ratings, movies, users)


# Column names of MovieLens's CSV files and RecBole's typed headers, in lower case, and ours.
MOVIE_COLUMNS = {
    "movieid": "movie",
    "item_id": "movie",
    "title": "title",
    "movie_title": "title",
    "name": "title",
    "year": "year",
    "release_year": "year",
    "genres": "genres",
    "genre": "genres",
    "class": "genres",
}
USER_COLUMNS = {
    "userid": "user",
    "user_id": "user",
    "gender": "gender",
    "age": "age",
    "occupation": "occupation",
    "zip_code": "zip",
}


# --- movies and users ----------------------------------------------------------------------------


def _table(path: Path, separator: str, names: list[str]) -> pd.DataFrame:
    """A text file of separated fields as strings."""
    return _frame(path, [(number, line.split(separator)) for number, line in enumerate(lines(path), start=1)], names)


def _csv_table(path: Path, columns: dict[str, str]) -> pd.DataFrame:
    """A CSV file with a header, and with quotes where a field needs them, as strings."""
    names = header_names(path, first_line(path), ",", columns)
    reader = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    try:
        rows = [(reader.line_num, row) for row in reader if row]
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: {error}: correct that line.") from error
    return _frame(path, rows[1:], names)


def _atomic_table(path: Path, columns: dict[str, str]) -> pd.DataFrame:
    names = header_names(path, first_line(path), "\t", columns)
    return _table(path, "\t", names).iloc[1:].reset_index(drop=True)


def _frame(path: Path, rows: list[tuple[int, list[str]]], names: list[str]) -> pd.DataFrame:
    """Rows with their line numbers as a table; every row has just the fields `names`."""
    for number, row in rows:
        if len(row) != len(names):
            raise UserError(
                f"{path}, line {number}: {' '.join(row)[:80]!r} has {len(row)} fields instead of {len(names)} "
                f"({', '.join(names)[:200]}): correct that line."
            )
    return pd.DataFrame([row for _, row in rows], columns=names)


def _movies(path: Path, table: pd.DataFrame) -> pd.DataFrame:
    """The movies table from its id, title and genre columns; the year is the one that ends the title."""
    table["movie"] = _ids(table["movie"])
    if table["movie"].duplicated().any():
        twice = table["movie"][table["movie"].duplicated()].iloc[0]
        raise UserError(f"{path}: movie {str(twice)[:40]} is listed twice: keep one line for each movie.")
    years = table["title"].str.extract(YEAR_AT_END, expand=False)
    table["year"] = pd.to_numeric(years, errors="coerce").astype("Int16")
    table["genres"] = [tuple(genre for genre in genres if genre not in NO_GENRE) for genres in table["genres"]]
    return table[["movie", "title", "year", "genres"]]


def _ids(column: pd.Series) -> pd.Series:
    """Integers where all of them are written as integers, else strings."""
    try:
        return column.astype(np.int64)
    except (ValueError, OverflowError):
        return column.astype(str)


def _users(table: pd.DataFrame) -> pd.DataFrame:
    table["user"] = _ids(table["user"])
    return table


def _movies_100k(path: Path) -> pd.DataFrame:
    genres = _required(path.parent / "u.genre")
    genre_names = [line.split("|")[0] for line in lines(genres) if "|" in line]
    refuse_repeated(genres, genre_names)
    table = _table(path, "|", ["movie", "title", "date", "video_date", "url", *genre_names])
    flags = table[genre_names].to_numpy() == "1"
    table["genres"] = [[genre_names[i] for i in np.flatnonzero(row)] for row in flags]
    return _movies(path, table)


def _movies_dat(path: Path) -> pd.DataFrame:
    table = _table(path, "::", ["movie", "title", "genres"])
    table["genres"] = table["genres"].str.split("|")
    return _movies(path, table)


def _movies_csv(path: Path) -> pd.DataFrame:
    return _movies_with_header(path, _csv_table(path, MOVIE_COLUMNS), genre_separator="|")


def _movies_atomic(path: Path) -> pd.DataFrame:
    return _movies_with_header(path, _atomic_table(path, MOVIE_COLUMNS), genre_separator=" ")


def _movies_with_header(path: Path, table: pd.DataFrame, genre_separator: str) -> pd.DataFrame:
    """RecBole separates a title from its year; joined again, they read as MovieLens writes them."""
    has_genres = "genres" in table
    table["genres"] = table["genres"].str.split(genre_separator, regex=False) if has_genres else [[]] * len(table)
    if "year" in table:
        undated = table["year"].str.fullmatch(r"\d{4}") & table["title"].str.extract(YEAR_AT_END, expand=False).isna()
        table["title"] = table["title"].mask(undated, table["title"] + " (" + table["year"] + ")")
    return _movies(path, table)


def _users_100k(path: Path) -> pd.DataFrame:
    return _users(_table(path, "|", ["user", "age", "gender", "occupation", "zip"]))


def _users_dat(path: Path) -> pd.DataFrame:
    return _users(_table(path, "::", ["user", "gender", "age", "occupation", "zip"]))


def _users_csv(path: Path) -> pd.DataFrame:
    return _users(_csv_table(path, USER_COLUMNS))


def _users_atomic(path: Path) -> pd.DataFrame:
    return _users(_atomic_table(path, USER_COLUMNS))


Reader = Callable[[Path], pd.DataFrame]
# A data format is a line here: ratings file, movies file and its reader, users file and its reader.
FORMATS: list[tuple[str, str, Reader, str, Reader]] = [
    ("u.data", "u.item", _movies_100k, "u.user", _users_100k),
    ("ratings.dat", "movies.dat", _movies_dat, "users.dat", _users_dat),
    ("ratings.csv", "movies.csv", _movies_csv, "users.csv", _users_csv),
    ("*.inter", "*.item", _movies_atomic, "*.user", _users_atomic),
]
