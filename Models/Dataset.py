"""The torch Dataset: ratings as columns, indexed by a whole batch of row numbers at once; what models take and give."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from torch import Tensor
from torch.utils.data import Dataset

Batch = dict[str, Tensor]


class Output(NamedTuple):
    """What a model's forward gives for a batch.

    stars: predicted, not clipped to the scale, [B]; None where the model only ranks
    loss: in training, a mean, a scalar
    count: of how many ratings or users the loss is the mean
    """

    stars: Tensor | None = None
    loss: Tensor | None = None
    count: Tensor | int = 0


@dataclass(frozen=True)
class Batching:
    """How a model wants its training rows put into batches, shuffled anew every epoch."""

    whole_users: bool = False  # all rows of a user are in one batch, oldest first
    counts: Literal["ratings", "users"] = "ratings"  # what --batch-size counts
    alike: bool = False  # users of a batch have about as many rows each, so that little is padded


ROWS = Batching()


class MovieLensDataset(Dataset):
    """Ratings as equally long tensors on one device, so that a batch is gathered where it is used.

    Item features live once in the model, not once a rating.

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
        if isinstance(rows, Tensor):
            rows = rows.to(self.columns["rating"].device, non_blocking=True)
        return {name: column[rows] for name, column in self.columns.items()}
