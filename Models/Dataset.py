"""The torch Dataset: ratings as columns, indexed by a whole batch of row numbers at once."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor
from torch.utils.data import Dataset

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Batching:
    """How a model wants its training rows put into batches, shuffled anew every epoch."""

    whole_users: bool = False  # all rows of a user are in one batch, oldest first
    counts: Literal["ratings", "users"] = "ratings"  # what --batch-size counts
    alike: bool = False  # users of a batch have about as many rows each, so that little is padded


ROWS = Batching()


class MovieLensDataset(Dataset):
    """Ratings as equally long tensors; item features live once in the model, not once a rating.

    Args:
        user: positions in the user map, int64 [n]
        movie: positions in the movie map, int64 [n]
        rating: stars, float32 [n]
        time: seconds since 1970, int64 [n]
    """

    def __init__(self, user: Tensor, movie: Tensor, rating: Tensor, time: Tensor):
        self.columns: Batch = {"user": user, "movie": movie, "rating": rating, "time": time}

    def __len__(self) -> int:
        return len(self.columns["rating"])

    def __getitem__(self, rows: Tensor | int) -> Batch:
        """The columns at these rows: each [B] for a tensor of B row numbers, a scalar for one number."""
        return {name: column[rows] for name, column in self.columns.items()}
