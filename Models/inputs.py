"""What every model is given: statistics of the data, movie and user features, training interactions."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import numpy as np
from annotated_types import Interval
from torch import Tensor
from torch.nn import functional as F

# Types of model settings, with their valid ranges.
PositiveInt = Annotated[int, Interval(ge=1, lt=2**31)]  # no larger than an index can be
NonNegInt = Annotated[int, Interval(ge=0, lt=2**31)]
NonNegFloat = Annotated[float, Interval(ge=0.0, lt=float("inf"))]
Fraction = Annotated[float, Interval(ge=0.0, lt=1.0)]


class UnsuitableData(ValueError):
    """The data does not suit a model; the message says why, and what to do."""


YEAR, POPULARITY = "year", "popularity"  # blocks of the movies' features that are in no features file
DECADES = range(1900, 2030, 10)
LOWEST, HIGHEST = 1.0, 5.0  # the scale of ratings that models see and predict, whatever the data's
CLOCK = 10**8  # seconds since 1970, in the year 1973: smaller times are counts of something
RELEVANT = 0.75  # part of the way from the lowest to the highest rating from which a movie is relevant
Ratings = TypeVar("Ratings", np.ndarray, Tensor, float)


@dataclass(frozen=True)
class RatingScale:
    """The lowest and highest training rating, or --scale, which models see as LOWEST and HIGHEST, others linearly.

    If all training ratings are equal, and so only tell who chose what, models see each as HIGHEST.
    """

    low: float
    high: float

    @classmethod
    def of(cls, rating: np.ndarray) -> "RatingScale":
        return cls(float(rating.min()), float(rating.max()))

    @property
    def is_constant(self) -> bool:
        return self.low == self.high

    @property
    def unit(self) -> float:
        """What a difference of 1 on the models' scale is on the data's."""
        return (self.high - self.low) / (HIGHEST - LOWEST)

    def threshold(self, wanted: float | None = None) -> float:
        """The rating from which a movie is relevant: `wanted` or, by default, three quarters up the scale."""
        return self.low + RELEVANT * (self.high - self.low) if wanted is None else wanted

    def to_model(self, rating: Ratings) -> Ratings:
        """Ratings of the data as models see them."""
        if self.is_constant:
            return rating * 0 + HIGHEST
        return (rating - self.low) / (self.high - self.low) * (HIGHEST - LOWEST) + LOWEST

    def from_model(self, rating: Ratings) -> Ratings:
        """Predictions of models on the data's scale, not clipped."""
        return (rating - LOWEST) / (HIGHEST - LOWEST) * (self.high - self.low) + self.low


@dataclass(frozen=True)
class FeatureBlock:
    """Columns of `features`, or a matrix of `names`, that belong together."""

    name: str
    kind: str
    width: int


@dataclass(frozen=True)
class DataStats:
    """Sizes and statistics of the data."""

    n_users: int
    n_movies: int
    blocks: tuple[FeatureBlock, ...]  # of the movies' features, in their order
    mean_rating: float  # of the training ratings, as models see them; scale, newest, longest_gap: of these too
    scale: RatingScale
    newest: int = 0  # seconds since 1970; 0 where the data has no times
    longest_gap: int = 0  # seconds between successive ratings of a user, without outliers; 0 until a model asks
    n_user_features: int = 0
    has_years: bool = False
    names: tuple[FeatureBlock, ...] = ()

    @property
    def n_features(self) -> int:
        return sum(block.width for block in self.blocks)


@dataclass(frozen=True)
class ModelInputs:
    """Tensors that a model is built from. Contains training interactions only.

    features: of the movies, float32 [n_movies, n_features]
    year: release years, float32 [n_movies], 0 where unknown
    user_features: demographics, float32 [n_users, n_user_features]
    count: number of training ratings of each movie, int64 [n_movies]
    training: returns the training ratings, from LOWEST to HIGHEST, as a `History`, on demand as there may be very many;
        none for a shared model
    names: of the movies, in blocks of sparse float32 [n_movies, width]
    space: how movies get features and names (`FeatureSpace` as plain values); None without a features file
    item_weights: B of EASE if already solved, as when a checkpoint is loaded
    n_new: number of movies, the last ones, that were added to a finished training
    """

    features: Tensor
    year: Tensor
    user_features: Tensor
    count: Tensor
    training: Callable[[], Any]
    names: tuple[Tensor, ...] = ()
    space: dict[str, Any] | None = None
    item_weights: Tensor | None = None
    n_new: int = 0

    def block(self, name: str, stats: DataStats) -> Tensor | None:
        """The columns of one block of the features, [n_movies, width]; None if it is not used."""
        widths = [block.width for block in stats.blocks]
        parts = zip(stats.blocks, self.features.split(widths, dim=1), strict=True)
        return next((part for block, part in parts if block.name == name), None)


def decades(year: Tensor) -> Tensor:
    """One-hot release decades, [n_movies, len(DECADES)]; zeros where the year is unknown (0)."""
    decade = ((year - DECADES[0]) // 10).long().clamp(0, len(DECADES) - 1)
    return F.one_hot(decade, len(DECADES)) * (year > 0)[:, None]
