#!/usr/bin/env python3
"""Generate any number of synthetic ratings, with planted preferences that a model can find.

    python resultAnalyze/synthetic.py --output dataset/synthetic
    python resultAnalyze/synthetic.py --users 200000 --movies 87000 --ratings 32000000 --output dataset/like-ml-32m
    python resultAnalyze/synthetic.py --users 600000 --movies 87000 --ratings 100000000 --mapped --output dataset/large

Writes ratings.csv and movies.csv in MovieLens' format, and truth.json: the RMSE of the true expectation of each rating,
which a model can beat only by chance, and that of the best constant.

As in MovieLens, few users rate many movies and few movies have many ratings (log-normal activity, Zipf-like
popularity). A user prefers some genres, picks movies from these by popularity, and rates them by

    rating = 3.5 + b_user + b_movie + p_user · q_movie + noise        rounded to halves from 0.5 to 5

where q_movie is its genre's vector plus a part of its own. Users are drawn in chunks, so that memory does not grow with
their number.
"""

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import numpy as np
import pandas as pd

from Models.inputs import NonNegInt, PositiveInt
from utils import cli
from utils.cli import display_path
from utils.config import Folder, parse
from utils.files import DATASET, UserError, atomic_write, write_json, write_table
from utils.memory_map import make_room
from utils.rating_columns import write_mapped

GENRES = ("Action", "Adventure", "Animation", "Comedy", "Crime", "Drama", "Fantasy", "Horror", "Romance", "Thriller")
FACTORS = 8
NOISE = 0.8  # standard deviation of a rating
MIN_RATINGS = 20  # per user
ACTIVITY = 1.0  # standard deviation of the logarithm of a user's number of ratings
POPULARITY = 1.3  # a movie's weight is (rank + 20) ** -POPULARITY
CHUNK_RATINGS = 2_000_000
TEN_YEARS = 315_360_000  # seconds


@dataclass(frozen=True)
class Settings:
    users: PositiveInt = 6_000
    """number of users"""
    movies: PositiveInt = 4_000
    """number of movies"""
    ratings: PositiveInt = 1_000_000
    """approximate number of ratings"""
    seed: NonNegInt = 0
    """seed of all random draws"""
    mapped: bool = False
    """write the ratings as memory-mapped columns, as utils/memory_map.py does"""
    output: Folder = DATASET / "synthetic"
    """folder for the files"""


def main() -> None:
    settings = parse(Settings, __doc__)
    if settings.ratings < MIN_RATINGS * settings.users:
        raise UserError(f"--ratings {settings.ratings}: {settings.users} users need at least {MIN_RATINGS} each.")
    if 4 * settings.ratings > settings.users * settings.movies:
        raise UserError("--ratings would be more than a quarter of all pairs: give fewer, or more --users or --movies.")
    random = np.random.default_rng(settings.seed)
    world = World.drawn(settings.movies, random)
    settings.output.mkdir(parents=True, exist_ok=True)
    if settings.mapped:
        make_room(settings.output)
    write_table(settings.output / "movies.csv", world.table())
    sums = np.zeros(4)  # over all ratings, of: 1, squared noise, rating, squared rating
    tables = added_up(rated(world, settings, random), sums)
    if settings.mapped:
        write_table(settings.output / "users.csv", pd.DataFrame({"userId": range(1, settings.users + 1)}))
        ids = (range(1, n + 1) for n in (settings.users, settings.movies))
        write_mapped(settings.output, map(as_columns, tables), *ids)
    else:
        write_ratings(settings.output / "ratings.csv", tables)
    n, noise, total, squares = sums
    truth = {
        "ratings": int(n),
        "rmse_of_truth": (noise / n) ** 0.5,
        "rmse_of_mean": (squares / n - (total / n) ** 2) ** 0.5,
    }
    write_json(settings.output / "truth.json", truth)
    print(
        f"Wrote {int(n):,} ratings to {display_path(settings.output)}: RMSE {truth['rmse_of_truth']:.4f} of the true "
        f"expectation, {truth['rmse_of_mean']:.4f} of the global mean."
    )


def added_up(chunks: Iterable[tuple[pd.DataFrame, np.ndarray]], sums: np.ndarray) -> Iterator[pd.DataFrame]:
    """Yield the tables of the chunks, adding each to `sums`."""
    for table, expected in chunks:
        rating = table["rating"].to_numpy()
        sums += len(rating), ((rating - expected) ** 2).sum(), rating.sum(), (rating**2).sum()
        yield table


def as_columns(table: pd.DataFrame) -> dict[str, np.ndarray]:
    """The ratings by index: ids start at 1, and every user has some."""
    index = {"user": table["userId"] - 1, "movie": table["movieId"] - 1}
    columns = index | {"rating": table["rating"], "time": table["timestamp"]}
    return {name: column.to_numpy() for name, column in columns.items()}


def write_ratings(path: Path, tables: Iterable[pd.DataFrame]) -> None:
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        for table in tables:
            table.to_csv(file, index=False, header=file.tell() == 0)


@dataclass(frozen=True)
class World:
    """The movies, ordered by genre; each array has one row per movie."""

    genre: np.ndarray  # int [n]
    picked: np.ndarray  # genre + share of its genre's popularity up to this movie, rising from 0 to n_genres
    bias: np.ndarray
    factors: np.ndarray  # [n, FACTORS]

    @classmethod
    def drawn(cls, n: int, random: np.random.Generator) -> "World":
        genre = np.sort(random.integers(len(GENRES), size=n))
        weight = (random.permutation(n) + 20.0) ** -POPULARITY
        picked = np.empty(n)
        for g in range(len(GENRES)):
            inside = genre == g
            picked[inside] = g + weight[inside].cumsum() / weight[inside].sum()
        centres = random.normal(0, 0.3, (len(GENRES), FACTORS))
        factors = centres[genre] + random.normal(0, 0.15, (n, FACTORS))
        return cls(genre, picked, random.normal(0, 0.3, n), factors)

    def pick(self, genre: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """A movie from each of these genres, drawn by popularity."""
        index = np.searchsorted(self.picked, genre + random.random(len(genre)), side="right")
        return np.minimum(index, len(self.picked) - 1)

    def table(self) -> pd.DataFrame:
        """movies.csv; ids start at 1."""
        ids = np.arange(1, len(self.genre) + 1)
        titles = [f"{GENRES[g]} Film {i} ({1930 + i % 90})" for g, i in zip(self.genre, ids, strict=True)]
        return pd.DataFrame({"movieId": ids, "title": titles, "genres": [GENRES[g] for g in self.genre]})


def rated(world: World, settings: Settings, random: np.random.Generator) -> Iterator[tuple[pd.DataFrame, np.ndarray]]:
    """Chunks of ratings.csv, ordered by user and time, and the expectation of each rating, [n]."""
    mean = settings.ratings / settings.users
    step = max(1, round(CHUNK_RATINGS / mean))
    for start in range(0, settings.users, step):
        n_users = min(step, settings.users - start)
        count = MIN_RATINGS + (mean - MIN_RATINGS) * random.lognormal(-(ACTIVITY**2) / 2, ACTIVITY, n_users)
        yield of_users(world, start + 1, np.minimum(count, len(world.genre) / 4).astype(int), random)


def of_users(
    world: World, first: int, count: np.ndarray, random: np.random.Generator
) -> tuple[pd.DataFrame, np.ndarray]:
    """The ratings of users `first`, `first` + 1, ...: `count` of each, or fewer if a user's draws repeat movies."""
    n = len(count)
    user = np.repeat(np.arange(n), 2 * count)
    liking = random.dirichlet(np.full(len(GENRES), 0.5), n).cumsum(1)
    genre = (liking[user] < random.random((len(user), 1))).sum(1).clip(max=len(GENRES) - 1)
    movie = world.pick(genre, random)
    other = np.sort(np.unique(user * len(world.genre) + movie, return_index=True)[1])  # each movie's first draw
    user, movie = user[other], movie[other]
    kept = np.arange(len(user)) - np.searchsorted(user, np.arange(n))[user] < count[user]
    user, movie = user[kept], movie[kept]
    taste, bias = random.normal(0, 0.6, (n, FACTORS)), random.normal(0, 0.3, n)
    expected = 3.5 + bias[user] + world.bias[movie] + (taste[user] * world.factors[movie]).sum(1)
    rating = (2 * (expected + random.normal(0, NOISE, len(user)))).round().clip(1, 10) / 2
    pause = random.exponential(60, len(user)).cumsum()
    begin = np.searchsorted(user, np.arange(n))
    time = 10**9 + random.integers(TEN_YEARS, size=n)[user] + (pause - pause[begin][user]).astype(int)
    table = pd.DataFrame({"userId": first + user, "movieId": movie + 1, "rating": rating, "timestamp": time})
    return table, expected.clip(0.5, 5)


if __name__ == "__main__":
    cli.run(main)
