"""Ratings as columns of indices: in memory, or memory-mapped from files, which all processes share."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from utils.files import UserError, read_json, write_json

MAPPED = "ratings.json"  # in a folder of memory-mapped ratings: says that they are complete, and how many
TYPES = {"user": "<i8", "movie": "<i8", "rating": "<f4", "time": "<i8"}  # little-endian, one file per column
CHUNK = 10_000_000  # rows that are processed together


@dataclass(frozen=True)
class RatingColumns:
    """Ratings with indices for ids: rating k is by user_ids[user[k]], of the movie in row movie[k] of the movies table.

    in_order: whether the rows are known to be sorted by user and time
    """

    user: np.ndarray  # int64 [n]
    movie: np.ndarray  # int64 [n]
    rating: np.ndarray  # float32 [n]
    time: np.ndarray | None  # int64 [n], seconds since 1970
    user_ids: list  # int or str
    in_order: bool = False

    @classmethod
    def of(cls, ratings: pd.DataFrame, movies: pd.DataFrame, source: object) -> "RatingColumns":
        """From a table of ids, as read from `source`.

        Raises:
            UserError: a user rates a movie twice.
        """
        movie = pd.Index(movies["movie"]).get_indexer(ratings["movie"]).astype(np.int64)
        user, user_ids = pd.factorize(ratings["user"], sort=True)
        user = user.astype(np.int64)
        if (row := repeated_pair(user, movie, len(movies))) is not None:
            raise UserError(
                f"{source}: user {ratings['user'].iloc[row]} rates movie {ratings['movie'].iloc[row]} more than once: "
                "keep one rating, or the pair could be both trained on and tested."
            )
        time = ratings["time"].to_numpy() if "time" in ratings else None
        return cls(user, movie, ratings["rating"].to_numpy(), time, user_ids.tolist())

    def table(self, movies: pd.DataFrame) -> pd.DataFrame:
        """The same as a table of ids: user, movie, rating and, where known, time."""
        user, movie = np.asarray(self.user_ids)[self.user], movies["movie"].to_numpy()[self.movie]
        time = {} if self.time is None else {"time": self.time}
        return pd.DataFrame({"user": user, "movie": movie, "rating": self.rating} | time)

    def chunks_in_order(self) -> Iterator[dict[str, np.ndarray]]:
        """All ratings by user and time, equal times in their order, in chunks of columns."""
        time = np.zeros_like(self.user) if self.time is None else self.time
        rows = np.arange(len(time)) if self.in_order else np.lexsort((time, self.user))
        columns = {name: getattr(self, name) for name in TYPES if getattr(self, name) is not None}
        for start in range(0, len(rows), CHUNK):
            yield {name: column[rows[start : start + CHUNK]] for name, column in columns.items()}


def repeated_pair(user: np.ndarray, movie: np.ndarray, n_movies: int) -> int | None:
    """The first row whose user rates the same movie in another row as well."""
    pair = user * n_movies + movie
    ordered = np.sort(pair)
    repeated = ordered[1:] == ordered[:-1]
    return int(np.argmax(pair == ordered[int(np.argmax(repeated))])) if repeated.any() else None


# --- memory-mapped -------------------------------------------------------------------------------


def write_mapped(folder: Path, chunks: Iterable[dict[str, np.ndarray]], user_ids: list, movie_ids: list) -> int:
    """Write ratings, which come sorted by user and time, to files that `read_mapped` maps; returns how many.

    Memory use does not grow with their number. A process that has mapped earlier ones keeps those.
    """
    n, names = 0, []
    for chunk in chunks:
        names = list(chunk)
        for name, column in chunk.items():
            with _file(folder, name, "part").open("ab" if n else "wb") as file:
                column.astype(TYPES[name]).tofile(file)
        n += len(chunk["user"])
    for name in names:
        _file(folder, name, "part").replace(_file(folder, name))
    columns = {name: TYPES[name] for name in names}
    write_json(folder / MAPPED, {"n_ratings": n, "columns": columns, "ids_sha256": _hash(user_ids, movie_ids)})
    return n


def read_mapped(folder: Path, user_ids: list, movie_ids: list) -> RatingColumns:
    """The ratings of `write_mapped`, which are read from disk when they are used.

    Args:
        user_ids, movie_ids: of the tables beside them

    Raises:
        UserError: a file is missing or not what `write_mapped` writes, or the ratings are of other users or movies.
    """
    remedy = "make the folder again with python utils/memory_map.py"
    described = read_json(folder / MAPPED)
    try:
        n, types = int(described["n_ratings"]), {str(name): str(kind) for name, kind in described["columns"].items()}
        if not {"user", "movie", "rating"} <= set(types) or any(TYPES.get(name) != types[name] for name in types):
            raise ValueError("its columns are not those of ratings")
        # copy on write: PyTorch wants writable memory, but nothing is written
        columns = {name: np.asarray(np.memmap(_file(folder, name), kind, "c")) for name, kind in types.items()}
        if wrong := [_file(folder, name).name for name, column in columns.items() if len(column) != n]:
            raise ValueError(f"{wrong[0]} has another length")
        if described["ids_sha256"] != _hash(user_ids, movie_ids):
            raise ValueError("users.csv or movies.csv has other ids, or another order of them")
    except (FileNotFoundError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{folder / MAPPED} does not fit the files beside it ({error}): {remedy}.") from error
    found = RatingColumns(*(columns.get(name) for name in TYPES), user_ids, in_order=True)
    if fault := _fault(found, len(movie_ids)):
        raise UserError(f"{folder}: {fault}: {remedy}.")
    return found


def _file(folder: Path, name: str, suffix: str = "bin") -> Path:
    return folder / f"ratings_{name}.{suffix}"


def _hash(*ids: list) -> str:
    """SHA-256 of ids as they are written, in their order."""
    return hashlib.sha256("\x1e".join("\x1f".join(map(str, one)) for one in ids).encode()).hexdigest()


def _fault(found: RatingColumns, n_movies: int) -> str | None:
    """What is wrong with memory-mapped ratings; checked in chunks, so that memory use does not grow with them."""
    n = len(found.user)
    for start in range(0, n, CHUNK):
        rows = slice(max(0, start - 1), start + CHUNK)
        user, movie, rating = found.user[rows], found.movie[rows], found.rating[rows]
        if min(user.min(), movie.min()) < 0 or user.max() >= len(found.user_ids) or movie.max() >= n_movies:
            return "a rating is by a user or of a movie that is not in its table"
        if not np.isfinite(rating).all():
            return "a rating is not a number"
        step = np.diff(user)
        if (step < 0).any() or (found.time is not None and (np.diff(found.time[rows])[step == 0] < 0).any()):
            return "the ratings are not sorted by user and time"
    start = 0
    while start < n:
        end = int(np.searchsorted(found.user, found.user[min(start + CHUNK, n) - 1], side="right"))
        if repeated_pair(found.user[start:end], found.movie[start:end], n_movies) is not None:
            return "a user rates a movie more than once"
        start = end
    return None if n else "there are no ratings"
