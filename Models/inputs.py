"""What models are told of the data: sizes, and what the training part knows."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from Models.dataLoader import RatingsData
from utils.cli import flag


@dataclass(frozen=True)
class FeatureConfig:
    """What every model is told: what to learn, and how to take the movies' features."""

    objective: Literal["rating", "ranking"] = flag("rating", "learn stars, or which movies a user chooses")
    titles: Literal["own", "none", "shuffled"] = flag(
        "own", "title vectors; shuffled: those of other movies, a control"
    )
    genres: bool = flag(True, "multi-hot genres")
    unit_titles: bool = flag(True, "title vectors centred and scaled to unit length, not as the encoder gave them")


@dataclass(frozen=True)
class DataSizes:
    """Sizes and rating scale of the data: none of them is written in the code."""

    n_users: int
    n_movies: int
    n_title: int  # dimensions of a title vector
    n_genres: int
    mean_rating: float  # of the training rows, in stars
    low: float  # rating scale in stars
    high: float
    n_user_features: int = 0
    n_history: int = 0  # training ratings
    newest: int = 0  # when the newest of them was given, seconds since 1970


@dataclass(frozen=True)
class Known:
    """Tensors that a model may keep in its state; of the ratings, those of the training part alone.

    features: title vectors and genres, float32 [n_movies, n_title + n_genres]
    year: release years, float32 [n_movies], 0 where unknown
    user_features: demographics, float32 [n_users, n_user_features]
    user, movie, stars, time: the training ratings by user, then time: int64, int64, float32, int64 [n_history]
    """

    features: Tensor
    year: Tensor
    user_features: Tensor
    user: Tensor
    movie: Tensor
    stars: Tensor
    time: Tensor

    def to(self, device: torch.device) -> "Known":
        return Known(**{name: value.to(device) for name, value in vars(self).items()})

    @classmethod
    def blank(cls, sizes: DataSizes) -> "Known":
        """Zeros of the right shapes, for a saved state to be loaded into."""
        whole = torch.zeros(3, sizes.n_history, dtype=torch.int64)
        return cls(
            features=torch.zeros(sizes.n_movies, sizes.n_title + sizes.n_genres),
            year=torch.zeros(sizes.n_movies),
            user_features=torch.zeros(sizes.n_users, sizes.n_user_features),
            user=whole[0],
            movie=whole[1],
            stars=torch.zeros(sizes.n_history),
            time=whole[2],
        )


def describe(data: RatingsData, rows: np.ndarray) -> tuple[DataSizes, Known]:
    """Sizes, rating statistics and histories of these training rows alone."""
    rows = data.by_user_and_time(rows)
    rating = data.rating[rows]
    sizes = DataSizes(
        n_users=len(data.user_ids),
        n_movies=len(data.movies),
        n_title=data.features.info.bert_dim,
        n_genres=len(data.features.info.genres),
        mean_rating=float(rating.mean(dtype=np.float64)),
        low=float(rating.min()),
        high=float(rating.max()),
        n_user_features=data.user_features.shape[1],
        n_history=len(rows),
        newest=int(data.times()[rows].max()),
    )
    known = Known(
        features=torch.from_numpy(data.features.vectors),
        year=torch.from_numpy(data.movies["year"].to_numpy(np.float32, na_value=0)),
        user_features=torch.from_numpy(data.user_features),
        user=torch.from_numpy(data.user[rows]),
        movie=torch.from_numpy(data.movie[rows]),
        stars=torch.from_numpy(rating),
        time=torch.from_numpy(data.times()[rows]),
    )
    return sizes, known


DECADES = range(1900, 2030, 10)


def decades(year: Tensor) -> Tensor:
    """One-hot release decades, [n_movies, len(DECADES)]; zeros where the year is 0, unknown."""
    decade = ((year - DECADES[0]) // 10).long().clamp(0, len(DECADES) - 1)
    return F.one_hot(decade, len(DECADES)) * (year > 0)[:, None]


def prepared(features: Tensor, config: FeatureConfig, sizes: DataSizes) -> Tensor:
    """Features as the models take them: unwanted parts are zero, so that every size stays the same."""
    titles, genres = features.tensor_split([sizes.n_title], dim=1)
    if config.unit_titles:  # raw encoder vectors all look much alike
        titles = F.normalize(titles - titles.mean(0))
    if config.titles == "shuffled":
        titles = titles[torch.randperm(len(titles))]
    return torch.cat([titles * (config.titles != "none"), genres * config.genres], 1)
