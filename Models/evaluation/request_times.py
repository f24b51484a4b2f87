"""The time of the request for each evaluated list: that of the tested rating, of which models see nothing else."""

from dataclasses import dataclass

import numpy as np

from Models.ratings_data import RatingsData
from utils.splits import Split

NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True)
class RequestTimes:
    """Request times of the users of a split; all times are in seconds since 1970, or 0 if the data has none."""

    data: RatingsData
    split: Split

    def of(self, known: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """When each user's list is requested, int64 [n_users]: at the first rating of `rows`, see `first`.

        It is never before the user's latest rating in the rows `known` and, if the test is no forecast, is the time of
        that rating.
        """
        latest, first = self.latest(known), self.first(rows)
        if not self.is_forecast():
            return latest
        return np.maximum(latest, np.where(first < NEVER, first, latest))

    def is_forecast(self) -> bool:
        """Whether the data has times and no user is tested before a known rating of theirs."""
        return self.data.time is not None and not (self.first(self.split.test) < self.latest(self.split.known)).any()

    def in_later_second(self) -> np.ndarray:
        """Users who are tested in a later second than that of their latest known rating, bool [n_users]; no new users.

        The others rate several movies at once, which reveals much about the next.
        """
        known = self.split.known
        has_known = np.isin(np.arange(len(self.data.user_ids)), self.data.user[known])
        return has_known & (self.first(self.split.test) > self.latest(known))

    def latest(self, rows: np.ndarray) -> np.ndarray:
        """The time of each user's latest rating, int64 [n_users]; min(0, oldest time) without ratings."""
        times = np.full(len(self.data.user_ids), min(0, self.data.times().min()), np.int64)
        np.maximum.at(times, self.data.user[rows], self.data.times()[rows])
        return times

    def first(self, rows: np.ndarray) -> np.ndarray:
        """The time of each user's first rating in these rows or, if the split is global, of the first of all users.

        int64 [n_users]; NEVER without ratings
        """
        times = np.full(len(self.data.user_ids), NEVER, np.int64)
        np.minimum.at(times, self.data.user[rows], self.data.times()[rows])
        return np.full_like(times, times.min()) if self.split.at_once else times
