"""From files to columns: ratings by index, features in the movies' order, splits, and the inputs of a model."""

import dataclasses
import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch

from Models.features import FeatureConfig, FeatureSpace
from Models.inputs import POPULARITY, YEAR, DataStats, ModelInputs, RatingScale
from Models.sequences import History
from utils.columns import Block
from utils.features import Features, read_features
from utils.files import UserError
from utils.readers import read_dataset
from utils.splits import NEEDS_TIME, SPLITS, Ratios, Split, SplitName, split_given


@dataclass(frozen=True)
class RatingsData:
    """A data set with indices for ids: rating k is by user_ids[user[k]], of the movie in row movie[k] of `movies`.

    `movies` lists the whole catalogue, unrated movies too; the rows of `features` are in its order. `rating` is as in
    the files, `scaled_rating` as models see it, by the `scale` of the training ratings.
    `n_given_train` is set if the user gave files: the rows before it are from the training file.
    """

    name: str
    user: np.ndarray  # int64 [n]
    movie: np.ndarray  # int64 [n]
    rating: np.ndarray  # float32 [n]
    time: np.ndarray | None  # int64 [n], seconds since 1970
    user_ids: list  # int or str
    user_features: np.ndarray  # demographics, float32 [n_users, n_user_features]; no columns where the data has none
    movies: pd.DataFrame
    features: Features
    scale: RatingScale
    n_given_train: int | None = None
    user_feature_names: tuple[str, ...] = ()
    in_order: bool = False  # whether the rows are sorted by user and time

    @cached_property
    def scaled_rating(self) -> np.ndarray:
        """The ratings as models see them, float32 [n]."""
        return self.scale.to_model(self.rating)

    def times(self) -> np.ndarray:
        """The times or, if the data has none, zeros: all ratings at once."""
        return np.zeros_like(self.user) if self.time is None else self.time

    def ids(self, user: np.ndarray, movie: np.ndarray) -> dict[str, np.ndarray]:
        """The ids of these indices, as in the user's files."""
        return {"userId": np.asarray(self.user_ids)[user], "movieId": self.movies["movie"].to_numpy()[movie]}

    def select(self, rows: np.ndarray) -> "Interactions":
        """The ratings of these rows as columns, on the models' scale."""
        genres = self.features.vectors[:, self.features.info.bert_dim :]
        ratings = self.user[rows], self.movie[rows], self.scaled_rating[rows], self.times()[rows]
        return Interactions(*ratings, len(self.user_ids), len(self.movies), genres)

    def history(self, rows: np.ndarray | None = None) -> History:
        """The ratings of these rows (default: all), on the models' scale, as the histories of all users."""
        rows = self.by_user_and_time(rows)
        columns = (torch.from_numpy(c[rows]) for c in (self.user, self.movie, self.scaled_rating, self.times()))
        return History.of(*columns, len(self.user_ids))

    def fingerprint(self) -> str:
        """SHA-256 of all ratings, users and demographics; equal for ratings data that trains alike."""
        digest = hashlib.sha256(repr((self.user_ids, self.user_feature_names)).encode())
        for column in (self.user, self.movie, self.rating, self.times(), self.user_features):
            digest.update(np.ascontiguousarray(column))
        return digest.hexdigest()

    def by_user_and_time(self, rows: np.ndarray | None = None) -> np.ndarray | slice:
        """These rows (default: all), by user and oldest first; equal times keep the order of the files."""
        if self.in_order:
            return slice(None) if rows is None else np.sort(rows)
        rows = np.arange(len(self.user)) if rows is None else np.sort(rows)
        return rows[np.lexsort((self.times()[rows], self.user[rows]))]


@dataclass(frozen=True)
class Interactions:
    """Ratings as columns, each [n], with the sizes of the data set and its movies' genres."""

    user: np.ndarray
    movie: np.ndarray
    rating: np.ndarray
    time: np.ndarray
    n_users: int
    n_movies: int
    genres: np.ndarray  # multi-hot [n_movies, n_genres]

    def matrix(self, weight: np.ndarray | None = None) -> sp.csr_matrix:
        """Users by movies, float32, holding `weight` or, by default, 1 where there is a rating."""
        weight = np.ones(len(self.user), np.float32) if weight is None else weight.astype(np.float32)
        return sp.csr_matrix((weight, (self.user, self.movie)), (self.n_users, self.n_movies))


def load_data(
    folder: Path,
    features: Path,
    train_file: Path | None = None,
    test_file: Path | None = None,
    encoding: str | None = None,
) -> RatingsData:
    """Read a data set, map its ids to indices and align the movie features; the scale is that of all ratings.

    Raises:
        UserError: a file is missing, damaged or does not fit the others; the message names it and the remedy.
    """
    if (train_file is None) != (test_file is None):
        raise UserError("Only one of --train-file and --test-file is given: give both or neither.")
    files = (train_file, test_file) if train_file and test_file else ()
    data = read_dataset(folder, encoding, files)
    user_features = demographics(data.users, np.asarray(data.columns.user_ids))
    return RatingsData(
        name=data.name,
        **vars(data.columns),
        user_features=user_features.to_numpy(np.float32),
        user_feature_names=tuple(map(str, user_features)),
        movies=data.movies,
        features=read_features(features, data.movies),
        scale=RatingScale.of(data.columns.rating),
        n_given_train=data.n_of_file[0] if files else None,
    )


NO_VALUE = ("", "?", "NA", "N/A", "nan", "None", "null", "\\N", "-")
AGES = [-1, 17, 24, 34, 44, 49, 55, np.inf]  # the upper ends, inclusive, of MovieLens 1M's groups


def demographics(users: pd.DataFrame, user_ids: np.ndarray) -> pd.DataFrame:
    """One-hot gender, age group and occupation of the users, [n_users, n]; zeros where unknown.

    Ages are grouped if most of them are numbers; otherwise each value, such as 25-34, is its own group.
    """
    table = users.set_index("user").reindex(user_ids)
    table = table.mask(table.isin(NO_VALUE))
    if "age" in table:
        age = pd.to_numeric(table["age"], errors="coerce")
        table["age"] = pd.cut(age, AGES) if age.notna().sum() > table["age"].notna().sum() / 2 else table["age"]
    known = [name for name in ("gender", "age", "occupation") if name in table]
    return pd.get_dummies(table[known]) if known else pd.DataFrame(index=table.index)


def model_inputs(data: RatingsData, rows: np.ndarray, config: FeatureConfig) -> tuple[DataStats, ModelInputs]:
    """What a model is built from: features, and only these training rows of the ratings."""
    count = np.bincount(data.movie[rows], minlength=len(data.movies))
    year = data.movies["year"].to_numpy(np.float32, na_value=0)
    blocks, year = shuffled(data, year, config)
    space, movies = FeatureSpace.fit(blocks, year, count, config)
    stats = DataStats(
        n_users=len(data.user_ids),
        n_movies=len(data.movies),
        blocks=space.dense_blocks(),
        names=space.name_blocks(),
        mean_rating=float(data.scaled_rating[rows].mean(dtype=np.float64)),
        scale=data.scale,
        newest=int(data.times()[rows].max()),
        n_user_features=data.user_features.shape[1],
        has_years=bool(data.movies["year"].notna().any()),
    )
    inputs = ModelInputs(
        features=movies.features,
        names=movies.names,
        space=space.to_plain(),
        year=torch.from_numpy(year),
        user_features=torch.from_numpy(data.user_features),
        count=torch.from_numpy(count),
        training=lambda: data.history(rows),
    )
    return stats, inputs


def shuffled(data: RatingsData, year: np.ndarray, config: FeatureConfig) -> tuple[list[Block], np.ndarray]:
    """The feature blocks and years of the movies; blocks to shuffle are permuted among the movies.

    Raises:
        UserError: a wanted block is not in the features file.
    """
    blocks = data.features.blocks()
    known = [block.name for block in blocks] + [YEAR, POPULARITY]
    for name in config.shuffled:
        if name == POPULARITY or name not in (known if config.blocks is None else config.blocks):
            raise UserError(f"--shuffled {name}: it is not among the blocks, or is made from the others: leave it out.")
    for name in config.blocks or ():
        if name not in known:
            raise UserError(
                f"The features have no block {name!r}: choose from {', '.join(known)}, or make them again with "
                "python utils/BERT.py --metadata FILE."
            )
    found = []
    for block in blocks:
        order = torch.randperm(len(year)).numpy() if block.name in config.shuffled else slice(None)
        found.append(dataclasses.replace(block, values=block.values[order]))
    return found, year[torch.randperm(len(year)).numpy()] if YEAR in config.shuffled else year


def split_rows(data: RatingsData, name: SplitName, ratios: Ratios) -> Split:
    """Split the rows of a data set for training, validation and test; the user's own files, if given, override `name`.

    Raises:
        UserError: the ratios are invalid, the split needs times that the data lacks, or a part is empty.
    """
    sums_to_1 = abs(sum(ratios) - 1) <= 1e-6  # False for NaN
    if not sums_to_1 or min(ratios) < 0 or ratios[0] == 0 or ratios[2] == 0:
        raise UserError(f"--ratios {' '.join(map(str, ratios))}: give TRAIN VAL TEST that sum to 1; only VAL may be 0.")
    if data.n_given_train is not None:
        split = split_given(len(data.rating), data.n_given_train, ratios)
    elif name in NEEDS_TIME and data.time is None:
        raise UserError(f"{data.name} has no times, which --split {name} needs: use --split random.")
    else:
        split = SPLITS[name](data.user, data.movie, data.time, ratios)
    if data.in_order:
        split = dataclasses.replace(split, protocol=f"{split.protocol}, of rows by user and time")
    for part, rows in (("training", split.train), ("test", split.test), ("validation", split.val)):
        if not len(rows) and not (part == "validation" and ratios[1] == 0):
            raise UserError(f"{data.name} is too small for these ratios: no {part} rows are left, change --ratios.")
    return split


def split_fingerprint(data: RatingsData, split: Split) -> str:
    """SHA-256 of which user's rating of which movie trains, validates and tests, in any order of the files."""
    digest = hashlib.sha256(repr((data.user_ids, data.movies["movie"].tolist())).encode())
    for rows in (split.train, split.val, split.test):
        digest.update(np.sort(data.user[rows] * len(data.movies) + data.movie[rows]).tobytes() + b"\x1e")
    return digest.hexdigest()


def note_on_order(data: RatingsData) -> str | None:
    """A warning if file order stands in for times: many ratings of a user share a second and are sorted by movie.

    Ratings at equal times stay in file order, so that the movie's id then tells which one "comes next".
    """
    if data.time is None:
        return None
    rows = data.by_user_and_time()
    tied = (np.diff(data.user[rows]) == 0) & (np.diff(data.time[rows]) == 0)
    rising = np.diff(data.movie[rows])[tied] > 0
    if tied.mean() < 0.05 or rising.mean() < 0.9:
        return None
    return (
        f"Note: {tied.mean():.0%} of the ratings share their second with the user's previous rating, and in "
        f"{rising.mean():.0%} of these the movies are in the order of the movies file: results by time "
        "(--split time, user-time, leave-one-out) and of sequential models partly show that order."
    )
