"""Splits: which rows are for training, validation and test.

The choice of rows is part of the protocol, so it depends on a fixed seed and never on the model's.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

Ratios = tuple[float, float, float]
SPLIT_SEED = 42
TRAIN, VAL, TEST = 0, 1, 2


@dataclass(frozen=True)
class Split:
    """Row numbers of the three parts, and the protocol in words.

    at_once: whether all users share one request time, the start of the part, not that of their own first row in it
    """

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray
    protocol: str
    at_once: bool = False

    @property
    def known(self) -> np.ndarray:
        """The rows that are known when the test begins."""
        return np.concatenate([self.train, self.val])

    def parts(self, n: int) -> np.ndarray:
        """The part of each of n rows, uint8 [n]."""
        part = np.empty(n, np.uint8)
        for rows, which in ((self.train, TRAIN), (self.val, VAL), (self.test, TEST)):
            part[rows] = which
        return part


def percent(ratios: Ratios) -> str:
    return "/".join(f"{100 * ratio:g}" for ratio in ratios) + " train/validation/test"


def split_random(user: np.ndarray, movie: np.ndarray, time: np.ndarray | None, ratios: Ratios) -> Split:
    """The first part of one fixed permutation is the test part, the next validation, the rest training."""
    n = len(user)
    rows = np.random.default_rng(SPLIT_SEED).permutation(n)
    n_test, n_val = round(n * ratios[2]), round(n * ratios[1])
    words = f"random rows {percent(ratios)}, permutation of numpy's default_rng({SPLIT_SEED})"
    return Split(rows[n_test + n_val :], rows[n_test : n_test + n_val], rows[:n_test], words)


def split_time(user: np.ndarray, movie: np.ndarray, time: np.ndarray, ratios: Ratios) -> Split:
    """The oldest ratings are for training, the newest for test; equal times stay in file order."""
    rows = np.argsort(time, kind="stable")
    n_test, n_val = round(len(rows) * ratios[2]), round(len(rows) * ratios[1])
    n_train = len(rows) - n_test - n_val
    words = f"global time {percent(ratios)}, oldest to newest"
    return Split(rows[:n_train], rows[n_train : n_train + n_val], rows[n_train + n_val :], words, at_once=True)


def split_user_time(user: np.ndarray, movie: np.ndarray, time: np.ndarray, ratios: Ratios) -> Split:
    """Each user's newest ratings are for test, those before for validation; numbers are rounded down."""
    rows, from_end, counts = _histories(user, time)
    n_test = np.floor(counts * ratios[2] + 1e-9)
    n_val = np.floor(counts * ratios[1] + 1e-9)
    test = from_end < n_test
    val = ~test & (from_end < n_test + n_val)
    words = f"time within each user {percent(ratios)}, oldest to newest"
    return Split(rows[~(val | test)], rows[val], rows[test], words)


def split_leave_one_out(user: np.ndarray, movie: np.ndarray, time: np.ndarray, ratios: Ratios) -> Split:
    """Each user's last rating is for test and, unless VAL is 0, the one before for validation.

    Users with too few ratings are only in training.
    """
    rows, from_end, counts = _histories(user, time)
    n_val = int(ratios[1] > 0)
    tested = counts > 1 + n_val
    test = tested & (from_end == 0)
    val = tested & (from_end == 1) & (n_val == 1)
    words = "leave-one-out: each user's last rating is the test" + ", the one before the validation" * n_val
    return Split(rows[~(val | test)], rows[val], rows[test], words)


def _histories(user: np.ndarray, time: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows by user and time (ties in file order) and, for each, how far from the user's last row and of how many."""
    rows = np.lexsort((time, user))
    n_ratings = np.bincount(user)
    counts = np.repeat(n_ratings, n_ratings)
    from_end = np.repeat(np.cumsum(n_ratings), n_ratings) - np.arange(len(rows)) - 1
    return rows, from_end, counts


def split_cold_movies(user: np.ndarray, movie: np.ndarray, time: np.ndarray | None, ratios: Ratios) -> Split:
    return _split_cold(movie, "movies", ratios)


def split_cold_users(user: np.ndarray, movie: np.ndarray, time: np.ndarray | None, ratios: Ratios) -> Split:
    return _split_cold(user, "users", ratios)


def _split_cold(column: np.ndarray, what: str, ratios: Ratios) -> Split:
    """Hold out a TEST and a VAL share of the movies (or users) with all their ratings.

    The ratings of the others are split at random by the same ratios, so that warm and cold can be measured separately.
    """
    random = np.random.default_rng(SPLIT_SEED)
    ids, position = np.unique(column, return_inverse=True)
    cold = _random_parts(len(ids), ratios, random)[position]
    part = np.where(cold == TRAIN, _random_parts(len(column), ratios, random), cold)
    words = f"cold {what}: {percent(ratios)} of the {what} with all their ratings, and of the other {what}' ratings"
    return Split(*(np.flatnonzero(part == which) for which in (TRAIN, VAL, TEST)), words)


def _random_parts(n: int, ratios: Ratios, random: np.random.Generator) -> np.ndarray:
    """The part of each of n items, int8 [n]."""
    order = random.permutation(n)
    n_test, n_val = round(n * ratios[2]), round(n * ratios[1])
    part = np.full(n, TRAIN, np.int8)
    part[order[:n_test]] = TEST
    part[order[n_test : n_test + n_val]] = VAL
    return part


def split_given(n: int, n_train: int, ratios: Ratios) -> Split:
    """The user's own test file; the validation part is drawn from the training file, the first `n_train` of n rows."""
    rows = np.random.default_rng(SPLIT_SEED).permutation(n_train)
    n_val = round(n_train * ratios[1] / (ratios[0] + ratios[1]))
    words = f"given files: {n - n_train:,} test rows; {n_val:,} random rows of {n_train:,} training rows validate"
    return Split(rows[n_val:], rows[:n_val], np.arange(n_train, n), words)


# A split is a line here; one that reads the times is also named in NEEDS_TIME.
SPLITS: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray, Ratios], Split]] = {
    "random": split_random,
    "time": split_time,
    "user-time": split_user_time,
    "leave-one-out": split_leave_one_out,
    "cold-movies": split_cold_movies,
    "cold-users": split_cold_users,
}
SplitName = Literal[tuple(SPLITS)]
NEEDS_TIME = ("time", "user-time", "leave-one-out")


def share_before_training_end(time: np.ndarray | None, split: Split) -> float | None:
    """Share of the test rows that are older than the newest training row: above 0, the future was trained on."""
    if time is None:
        return None
    return float((time[split.test] < time[split.train].max()).mean())
