"""From columns to batches: samplers of rows and of whole users, and the DataLoader over them."""

from collections.abc import Iterator
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from Models.Dataset import MovieLensDataset, RowBatches, UserBatches
from Models.ratings_data import RatingsData
from Models.sequences import group_by_size


class BatchSampler(Sampler[Tensor]):
    """Whole batches of row numbers; with a seed, shuffled again in each epoch.

    The order depends only on seed and epoch, so a resumed training sees the batches that it would have seen.
    """

    def __init__(self, rows: np.ndarray, batch_size: int, seed: int | None = None):
        self.rows = torch.from_numpy(rows)
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-len(self.rows) // self.batch_size)

    def __iter__(self) -> Iterator[Tensor]:
        rows = self.rows
        if self.seed is not None:
            random = torch.Generator().manual_seed(epoch_seed(self.seed, self.epoch))
            rows = rows[torch.randperm(len(rows), generator=random)]
        yield from rows.split(self.batch_size)


def epoch_seed(seed: int, epoch: int) -> int:
    """A well-mixed seed for each epoch of each run."""
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0])


class UserBatchSampler(BatchSampler):
    """Batches of whole users, each user's rows oldest first: at most `batch_size` rows or users, or one user.

    Users with more than `UserBatches.longest` rows get a new random window in each epoch.
    """

    def __init__(self, data: RatingsData, rows: np.ndarray, batch_size: int, seed: int, batching: UserBatches):
        rows = data.by_user_and_time(rows)
        super().__init__(rows, batch_size, seed)
        self.batching = batching
        self.of_user = self.rows.split(np.unique(data.user[rows], return_counts=True)[1].tolist())

    def set_epoch(self, epoch: int) -> None:
        super().set_epoch(epoch)
        self.__dict__.pop("batches", None)  # those of the previous epoch

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Tensor]:
        return map(torch.cat, self.batches)

    @cached_property
    def batches(self) -> list[list[Tensor]]:
        """The batches of this epoch: for each, the rows of each of its users."""
        random = torch.Generator().manual_seed(epoch_seed(self.seed, self.epoch))
        of_user = [self.window(rows, random) for rows in self.of_user]
        length = torch.tensor([len(rows) for rows in of_user])
        key = torch.rand(len(length), generator=random)
        if self.batching.similar_length:
            key = length * (1 + 0.1 * key)  # batches mix users differently in each epoch
        size = length.tolist() if self.batching.size_in == "ratings" else [1] * len(length)
        groups = group_by_size(key.argsort(stable=True).tolist(), size, self.batch_size)
        return [[of_user[user] for user in groups[i]] for i in torch.randperm(len(groups), generator=random)]

    def window(self, rows: Tensor, random: torch.Generator) -> Tensor:
        """A user's rows or, if more than `longest`, that many consecutive ones."""
        longest = self.batching.longest or len(rows)
        if len(rows) <= longest:
            return rows
        first = int(torch.randint(len(rows) - longest + 1, (), generator=random))
        return rows[first : first + longest]


def make_loader(
    data: RatingsData,
    rows: np.ndarray,
    batch_size: int,
    seed: int | None = None,
    batching: RowBatches | UserBatches | None = None,
    device: torch.device | str = "cpu",
) -> DataLoader:
    """A DataLoader of batches over these rows, in their order or, with a seed, shuffled in each epoch.

    Batches of whole users need a seed.
    """
    columns = (data.user, data.movie, data.scaled_rating, data.times())
    columns = (torch.from_numpy(column).to(device) for column in columns)
    if isinstance(batching, UserBatches):
        sampler = UserBatchSampler(data, rows, batch_size, seed, batching)
    else:
        sampler = BatchSampler(rows, batch_size, seed)
    # batch_size=None: the sampler's batches go to the dataset whole, not row by row.
    return DataLoader(MovieLensDataset(*columns), sampler=sampler, batch_size=None)
