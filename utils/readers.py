"""Readers: a data set's folder, whatever its format, becomes one small set of typed tables.

| files in the folder | format |
| --- | --- |
| u.data, u.item, u.user | MovieLens 100K |
| ratings.dat, movies.dat, users.dat | MovieLens 1M and 10M, fields separated by `::` |
| ratings.csv, movies.csv | MovieLens 20M, 25M, 32M, latest |
| *.inter, *.item, *.user | RecBole's atomic files; the format for your own data |
| ratings.json, ratings_*.bin, movies.csv, users.csv | memory-mapped, as utils/memory_map.py writes them |
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from utils import movie_files
from utils.files import UserError, note
from utils.rating_columns import MAPPED, RatingColumns, read_mapped
from utils.ratings import read_ratings


@dataclass(frozen=True)
class RawData:
    """A data set: ratings as columns and two tables. Ids are integers, or strings if the files' are not integers.

    columns: the ratings, all 1 if the files have none, and the times, if the files have them
    movies: movie, title (as written, with its year), year (Int16, missing if unknown), genres (tuple of strings)
    users: user and whichever of gender, age, occupation and zip the files have (strings)
    n_of_file: how many ratings each file has; they are in the order of the files
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
        encoding: of the text files; by default UTF-8, and for MovieLens 100K and 1M also latin-1
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
            f"{folder} is not a known data set: it needs u.data, ratings.dat, ratings.csv, a RecBole *.inter file or "
            "the ratings.json of utils/memory_map.py."
        )
    (ratings_file, layout), *others = found
    if others:
        note(f"{folder} holds {', '.join(file.name for file, _ in found)}: only the first is read.")
    stem = ratings_file.stem  # RecBole names the files of one data set alike
    users_file = folder / layout.users.replace("*", stem)
    is_mapped = ratings_file.name == MAPPED and not ratings_files
    files = [] if is_mapped else ratings_files or [ratings_file]
    ratings = [read_ratings(file, encoding) for file in files]
    movies = layout.read_movies(movie_files.required(folder / layout.movies.replace("*", stem)), encoding)
    users = layout.read_users(users_file, encoding) if users_file.is_file() else pd.DataFrame({"user": []})
    _with_common_ids([*ratings, movies, users])
    _refuse_repeated_ids(folder, movies, users)
    if is_mapped:
        columns = read_mapped(folder, users["user"].tolist(), movies["movie"].tolist())
        return RawData(folder.resolve().name, columns, movies, users, (len(columns.user),))
    return _joined(folder, files, ratings, movies, users)


def _with_common_ids(tables: list[pd.DataFrame]) -> None:
    """Give the users and movies of all tables ids of one type."""
    for name in ("user", "movie"):
        having = [table for table in tables if name in table]
        for table, ids in zip(having, common_ids([table[name] for table in having]), strict=True):
            table[name] = ids


def common_ids(columns: list[pd.Series]) -> list[pd.Series]:
    """Columns of ids as integers if every id in all of them is written as an integer, else as strings.

    So `0012`, which is no integer as written, and `12` stay different ids; blanks around an id do not count.
    """
    categories = [column.astype("category") for column in columns]
    words = {str(word).strip() for column in categories for word in column.cat.categories}
    integers = all(re.fullmatch(r"0|-?[1-9][0-9]{0,17}", word) for word in words)
    kind = np.int64 if integers else object

    def values(column: pd.Series) -> pd.Series:
        ids = np.array([int(word) if integers else str(word).strip() for word in column.cat.categories], dtype=kind)
        return pd.Series(ids[column.cat.codes.to_numpy()], column.index, dtype=kind)

    return [values(column) for column in categories]


def _joined(
    folder: Path, files: Sequence[Path], ratings: list[pd.DataFrame], movies: pd.DataFrame, users: pd.DataFrame
) -> RawData:
    """The data set, if every rated movie is in the movies table and no user rates one twice."""
    columns = [set(table) for table in ratings]
    if some := set.union(*columns) - set.intersection(*columns):
        raise UserError(f"Only some of the ratings files have a column for {', '.join(some)}: write all alike.")
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
            f"{folder}: none of the {len(columns.user_ids):,} users with ratings is in the users file: check that "
            "both files write ids alike."
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
        return "some differ only in leading zeros: write each id alike in both files, as text"
    return "add them to the movies file or remove their ratings"


def _newest_choices(folder: Path, ratings: pd.DataFrame) -> pd.DataFrame:
    """Choices, such as clicks, are often repeated: the newest of each user and movie counts."""
    by_time = ratings.sort_values("time", kind="stable") if "time" in ratings else ratings
    kept = ratings.loc[~by_time.duplicated(["user", "movie"], keep="last").sort_index()]
    if len(kept) < len(ratings):
        note(f"{folder}: of {len(ratings):,} choices, {len(kept):,} are kept, the newest of each user and movie.")
    return kept.reset_index(drop=True)


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
    Format("u.data", "u.item", movie_files.movies_100k, "u.user", movie_files.users_100k),
    Format("ratings.dat", "movies.dat", movie_files.movies_dat, "users.dat", movie_files.users_dat),
    Format("ratings.csv", "movies.csv", movie_files.movies_csv, "users.csv", movie_files.users_with_header),
    Format("*.inter", "*.item", movie_files.movies_atomic, "*.user", movie_files.users_with_header),
    Format(MAPPED, "movies.csv", movie_files.movies_csv, "users.csv", movie_files.users_with_header),
]
