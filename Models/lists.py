"""Lists of movies, one a user, behind each other in two tensors: what a user has seen, or would like."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class UserLists:
    """User u's movies are movies[start[u] : start[u + 1]], as positions; start is int64 [n_users + 1]."""

    start: Tensor
    movies: Tensor

    @classmethod
    def of(cls, user: np.ndarray, movie: np.ndarray, n_users: int) -> "UserLists":
        """Gather rows of (user, movie) by user; a user's movies keep the rows' order."""
        order = np.argsort(user, kind="stable")
        counts = np.bincount(user, minlength=n_users)
        return cls(torch.from_numpy(np.concatenate([[0], np.cumsum(counts)])), torch.from_numpy(movie[order]))

    def __getitem__(self, user: int) -> Tensor:
        return self.movies[self.start[user] : self.start[user + 1]].long()

    def counts(self) -> Tensor:
        """How many movies each user has, [n_users]."""
        return self.start.diff()

    def pairs(self, first: int, last: int) -> tuple[Tensor, Tensor]:
        """All (row, movie) of the users from `first` to before `last`; rows count from 0."""
        counts = self.start[first : last + 1].diff()
        rows = torch.repeat_interleave(torch.arange(last - first), counts)
        return rows, self.movies[self.start[first] : self.start[last]].long()
