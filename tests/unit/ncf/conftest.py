"""Fixtures: the small data set for the NCF's tests, and its training rows."""

import dataclasses

import numpy as np
import pytest
from helpers import RATIOS

from Models.ratings_data import RatingsData, split_rows


@pytest.fixture(scope="module")
def spread(data) -> RatingsData:
    """The small data set with ratings over weeks, each time with two, and demographics that tell users apart."""
    rank = np.arange(12).repeat(30).reshape(12, 30).T.ravel()  # of each rating among those of its user
    time = 978_300_000 + data.user * 7_000 + rank // 2 * 130_000
    user_features = np.random.default_rng(0).integers(0, 2, (30, 3)).astype(np.float32)
    return dataclasses.replace(data, time=time, user_features=user_features)


@pytest.fixture(scope="module")
def split(spread):
    return split_rows(spread, "random", RATIOS)


@pytest.fixture(scope="module")
def train(spread, split) -> np.ndarray:
    """The training rows; user 12 has none."""
    return split.train[spread.user[split.train] != 12]
