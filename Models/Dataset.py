"""The torch Dataset: ratings as columns, indexed by a whole batch of row numbers at once."""

from torch import Tensor
from torch.utils.data import Dataset

Batch = dict[str, Tensor]


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
