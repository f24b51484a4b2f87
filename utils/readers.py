"""Readers: a data set's folder, whatever its format, becomes one small set of typed tables.

| files in the folder | format |
| --- | --- |
| u.data, u.item, u.user | MovieLens 100K |
| ratings.dat, movies.dat, users.dat | MovieLens 1M and 10M, fields separated by `::` |
| ratings.csv, movies.csv | MovieLens 20M, 25M, 32M, latest |
| *.inter, *.item, *.user | RecBole's atomic files; the way to bring one's own data |
| ratings.json, ratings_*.bin, movies.csv, users.csv | memory-mapped, as utils/memory_map.py writes them |
"""

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from utils.columns import IDS, read_table
from utils.files import UserError, note
from utils.movies import split_genres, years
from utils.rating_columns import MAPPED, RatingColumns, read_mapped
from utils.ratings import common_ids, read_ratings
from utils.textfiles import check_header, find_header, lines_of, note_on_cut, read_utf8, refuse_repeated


@dataclass(frozen=True)
class RawData:
    """A data set: ratings as columns and two tables. Ids are integers, or strings where the files' are not integers.

    columns: the ratings; 1 where the files have none, and times where the files have them
    movies: movie, title (as written, with its year), year (Int16, missing if unknown), genres (tuple of strings)
    users: user and whichever of gender, age, occupation and zip the files have (strings)
    n_of_file: how many of the ratings, which stand file after file, each file has
    """

    name: str
    columns: RatingColumns
    movies: pd.DataFrame
    users: pd.DataFrame
    n_of_file: tuple[int, ...]

    @property
    def ratings(self) -> pd.DataFrame:
        """The ratings as a table of ids: user, movie, rating and, where known, time."""
        return self.columns.table(self.movies)


def read_dataset(folder: Path, encoding: str | None = None, ratings_files: Sequence[Path] = ()) -> RawData:
    """Read the data set in `folder`.

    Args:
        encoding: of the text files; by default UTF-8, of MovieLens 100K and 1M latin-1 as well
        ratings_files: read these instead of the folder's own ratings file

    Raises:
        UserError: the folder is missing or of no known format, or a file is damaged; names file and line.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(
            f"There is no folder {folder}: download the data with python utils/download.py, "
            "or name the folder of your data with --data."
        )
    found = [(file, layout) for layout in FORMATS for file in sorted(folder.glob(layout.ratings))]
    if not found:
        raise UserError(
            f"{folder} is no known data set: it needs u.data, ratings.dat, ratings.csv, a RecBole *.inter file or the "
            "ratings.json of utils/memory_map.py."
        )
    (ratings_file, layout), *others = found
    if others:
        note(f"{folder} holds {', '.join(file.name for file, _ in found)}: only the first is read.")
    stem = ratings_file.stem  # RecBole names the files of one data set alike
    users_file = folder / layout.users.replace("*", stem)
    is_mapped = ratings_file.name == MAPPED and not ratings_files
    files = [] if is_mapped else ratings_files or [ratings_file]
    ratings = [read_ratings(file, encoding) for file in files]
    movies = layout.read_movies(_required(folder / layout.movies.replace("*", stem)), encoding)
    users = layout.read_users(users_file, encoding) if users_file.is_file() else pd.DataFrame({"user": []})
    with_common_ids([*ratings, movies, users])
    _refuse_repeated_ids(folder, movies, users)
    if is_mapped:
        columns = read_mapped(folder, users["user"].tolist(), movies["movie"].tolist())
        return RawData(folder.resolve().name, columns, movies, users, (len(columns.user),))
    return _joined(folder, files, ratings, movies, users)


def _required(path: Path) -> Path:
    if not path.is_file():
        raise UserError(f"{path} is missing: put it beside the ratings file.")
    return path


def with_common_ids(tables: list[pd.DataFrame]) -> None:
    """Give the users and movies of all tables ids of one type."""
    for name in ("user", "movie"):
        having = [table for table in tables if name in table]
        for table, ids in zip(having, common_ids([table[name] for table in having]), strict=True):
            table[name] = ids


def _joined(
    folder: Path, files: Sequence[Path], ratings: list[pd.DataFrame], movies: pd.DataFrame, users: pd.DataFrame
) -> RawData:
    """The data set, if every rated movie is in the movies table once."""
    columns = [set(table) for table in ratings]
    if some := set.union(*columns) - set.intersection(*columns):
        raise UserError(f"Of the ratings files only some have a column for {', '.join(some)}: write them alike.")
    joined = pd.concat(ratings, ignore_index=True)
    if "rating" not in joined:
        joined["rating"] = np.float32(1)
    if len(ratings) == 1 and joined["rating"].nunique() == 1:
        joined = _newest_choices(folder, joined)
    if unknown := sorted(set(joined["movie"].unique()) - set(movies["movie"])):
        raise UserError(
            f"{folder}: the ratings name {len(unknown)} movies that the movies file lacks "
            f"({', '.join(str(movie)[:40] for movie in unknown[:5])}{', ...' if len(unknown) > 5 else ''}): "
            f"{_remedy(unknown, movies['movie'])}."
        )
    n_of_file = tuple(map(len, ratings)) if len(ratings) > 1 else (len(joined),)
    columns = RatingColumns.of(joined, movies, " and ".join(map(str, files)) if len(files) > 1 else folder)
    if len(users) and not pd.Index(columns.user_ids).isin(users["user"]).any():
        note(
            f"{folder}: none of the {len(columns.user_ids):,} users with ratings is in the users file: are the ids "
            "written alike?"
        )
    return RawData(folder.resolve().name, columns, movies, users, n_of_file)


def _refuse_repeated_ids(folder: Path, movies: pd.DataFrame, users: pd.DataFrame) -> None:
    for name, table in (("movie", movies), ("user", users)):
        if (repeated := table[name].duplicated()).any():
            twice = str(table[name][repeated].iloc[0])[:40]
            raise UserError(f"{folder}: {name} {twice} is listed twice: keep one line for each {name}.")


def _remedy(unknown: list, known: pd.Series) -> str:
    """What to do about rated movies that the movies file lacks."""
    without_zeros = {str(movie).lstrip("0") for movie in known}
    if any(str(movie).lstrip("0") in without_zeros for movie in unknown):
        return "there are such ids with other zeros in front: write each id alike in both files, as text"
    return "add them to the movies file or remove their ratings"


def _newest_choices(folder: Path, ratings: pd.DataFrame) -> pd.DataFrame:
    """Choices, such as clicks, come again and again: of each user and movie the newest counts."""
    by_time = ratings.sort_values("time", kind="stable") if "time" in ratings else ratings
    kept = ratings.loc[~by_time.duplicated(["user", "movie"], keep="last").sort_index()]
    if len(kept) < len(ratings):
        note(f"{folder}: of {len(ratings):,} choices {len(kept):,} are kept, the newest of each user and movie.")
    return kept.reset_index(drop=True)


# Names of columns, as `textfiles.plain` writes them, and ours.
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
    """The movies of a CSV file: movie, title, year and genres as in `MovieLens`; other columns are not looked at.

    Raises:
        UserError: the file is missing or damaged, or lacks a column of ids or titles.
    """
    known = {name: ours for name, ours in MOVIE_COLUMNS.items() if name not in ("genre", "class")}
    header, rows = read_table(path, known | IDS, encoding)
    table = pd.DataFrame(rows, columns=header.names).rename(columns={IDS["movieid"]: "movie"})
    if "title" not in table:
        raise UserError(f"{path} has no column of titles: call it title.")
    table["movie"] = table["movie"].str.strip()
    found = _movies(path, table[[name for name in ("movie", "title", "year", "genres") if name in table]].copy())
    found.loc[(table["title"].str.strip() == "").to_numpy(), "title"] = ""  # a year alone is none
    return found


# --- movies and users ----------------------------------------------------------------------------


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
    """Rows with their line numbers as a table; every row has just the fields `names`."""
    for number, row in rows:
        if len(row) != len(names):
            raise UserError(
                f"{path}, line {number}: {' '.join(row)[:80]!r} has {len(row)} fields instead of {len(names)} "
                f"({', '.join(names)[:200]}): correct that line."
            )
    return pd.DataFrame([row for _, row in rows], columns=names)


def _movies_100k(path: Path, encoding: str | None) -> pd.DataFrame:
    genres = _required(path.parent / "u.genre")
    genre_names = [line.split("|")[0] for line in lines_of(read_utf8(genres, encoding, or_latin_1=True)) if "|" in line]
    refuse_repeated(genres, genre_names)
    table = _table(path, "|", ["movie", "title", "date", "video_date", "url", *genre_names], encoding)
    flags = table[genre_names].to_numpy() == "1"
    written = pd.Series(["|".join(genre_names[i] for i in np.flatnonzero(row)) for row in flags])
    return _movies(path, table.assign(genres=written)[["movie", "title", "genres"]])


def _movies_dat(path: Path, encoding: str | None) -> pd.DataFrame:
    return _movies(path, _table(path, "::", ["movie", "title", "genres"], encoding))


def _movies_csv(path: Path, encoding: str | None) -> pd.DataFrame:
    return _movies(path, _table_with_header(path, MOVIE_COLUMNS, ["movie", "title"], encoding))


def _movies_atomic(path: Path, encoding: str | None) -> pd.DataFrame:
    table = _table_with_header(path, MOVIE_COLUMNS, ["movie", "title"], encoding)
    return _movies(path, table, genre_separator=" ")


def _movies(path: Path, table: pd.DataFrame, genre_separator: str | None = None) -> pd.DataFrame:
    """The movies table; a year beside the title is put behind it, so that titles read as MovieLens writes them."""
    if "genres" not in table:
        table["genres"] = ""
    table["year"] = years(path, table["title"], table.get("year"))
    undated = table["year"].notna() & years(path, table["title"]).isna()
    table["title"] = table["title"].mask(undated, table["title"] + " (" + table["year"].astype(str) + ")")
    table["genres"] = split_genres(path, table["genres"], genre_separator)
    return table[["movie", "title", "year", "genres"]]


def _users_100k(path: Path, encoding: str | None) -> pd.DataFrame:
    return _table(path, "|", ["user", "age", "gender", "occupation", "zip"], encoding)


def _users_dat(path: Path, encoding: str | None) -> pd.DataFrame:
    return _table(path, "::", ["user", "gender", "age", "occupation", "zip"], encoding)


def _users_with_header(path: Path, encoding: str | None) -> pd.DataFrame:
    return _table_with_header(path, USER_COLUMNS, ["user"], encoding)


Reader = Callable[[Path, str | None], pd.DataFrame]


@dataclass(frozen=True)
class Format:
    """The files of a data format, and how they are read; `*` stands for the name of the data set."""

    ratings: str
    movies: str
    read_movies: Reader
    users: str
    read_users: Reader


# A data format is a line here.
FORMATS = [
    Format("u.data", "u.item", _movies_100k, "u.user", _users_100k),
    Format("ratings.dat", "movies.dat", _movies_dat, "users.dat", _users_dat),
    Format("ratings.csv", "movies.csv", _movies_csv, "users.csv", _users_with_header),
    Format("*.inter", "*.item", _movies_atomic, "*.user", _users_with_header),
    Format(MAPPED, "movies.csv", _movies_csv, "users.csv", _users_with_header),
]
