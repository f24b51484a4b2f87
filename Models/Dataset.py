"""The torch Dataset over columns of ratings, the kinds of training batches, and the interface of a model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from torch import Tensor, nn
from torch.utils.data import Dataset

Batch = dict[str, Tensor]


class TrainingOutput(NamedTuple):
    """What a model's forward returns for a training batch.

    loss: a mean, a scalar
    n_samples: number of samples the loss is averaged over
    prediction: predicted ratings, not clipped to the scale, [B]; None if the model only ranks
    """

    loss: Tensor
    n_samples: Tensor | int
    prediction: Tensor | None = None


# Scores of every movie for some users: int64 [U] -> float [U, n_movies]; higher is better.
ScoreFn = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class FittedModel:
    """A trained model of any origin, as evaluation sees it; None for what it cannot do.

    predict: user, movie and time, [n] each -> predicted ratings on the scale of models, not clipped, [n]
    score: see ScoreFn
    """

    predict: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray] | None = None
    score: ScoreFn | None = None


@dataclass(frozen=True)
class RowBatches:
    """Training batches of single ratings, shuffled in each epoch."""


@dataclass(frozen=True)
class UserBatches:
    """Training batches of whole users, each user's ratings oldest first; the users are shuffled in each epoch.

    size_in: what --batch-size counts
    similar_length: group users with similar numbers of ratings, to reduce padding
    longest: most ratings of a user in an epoch; of users with more, consecutive ones from a random place on
    """

    size_in: Literal["ratings", "users"]
    similar_length: bool = True
    longest: int | None = None


class Model(nn.Module):
    """Base of all models; docs/extending.md lists what else they may have.

    batching: how training batches are made
    reads_histories: whether scores and predictions depend on users' histories
    serves_new_users: whether users who were not in training can be served, from their histories
    ranks_new_by_ease: whether EASE, if the model has it, is solved again with movies that were not in training
    looked_up: names of the embeddings that are used by row lookup only, so that --shard can distribute them
    unsupported_devices: types of devices that lack operations it needs
    notices: messages to print before training
    """

    batching: RowBatches | UserBatches = RowBatches()
    reads_histories: bool = True
    serves_new_users: bool = True
    ranks_new_by_ease: bool = True
    looked_up: tuple[str, ...] = ()
    unsupported_devices: tuple[str, ...] = ()
    notices: Sequence[str] = ()


class MovieLensDataset(Dataset):
    """Ratings as equally long tensors on one device, so that a batch is gathered where it is used.

    Item features are stored once in the model, not once per rating.

    Args:
        user: indices of users, int64 [n]
        movie: indices of movies, int64 [n]
        rating: as models see it, from 1 to 5 whatever the scale of the data, float32 [n]
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
