"""Users' histories: ratings by user and time, padded to tensors."""

from dataclasses import dataclass

import torch
from torch import Tensor

from Models.Dataset import Batch

NEW_USER = -1
MIN_GAPS = 100  # gaps are clipped at the 100th longest, few at the longest tenth: too few are longer to learn from


@dataclass(frozen=True)
class PaddedHistory:
    """Ratings of B users, oldest first, padded to the longest.

    user: indices, int64 [B]; NEW_USER for a user who is not in the data
    movie, rating, time: int64, float32 and int64 (seconds since 1970), [B, L]
    mask: bool [B, L]; False is padding, which is at the end
    request_time: when a list is requested, int64 [B]; the time of the latest rating if unknown
    """

    user: Tensor
    movie: Tensor
    rating: Tensor
    time: Tensor
    mask: Tensor
    request_time: Tensor

    def lengths(self) -> Tensor:
        return self.mask.sum(1)

    def last_times(self, without: int) -> Tensor:
        """The time of each user's latest rating, [B]; `without` for users without ratings."""
        return torch.where(self.mask.any(1), latest_times(self.time, self.mask), without)

    def flat(self) -> "History":
        """The same ratings without padding; its user k is row k here."""
        columns = (column[self.mask] for column in (self.movie, self.rating, self.time))
        return History(offsets(self.lengths(), closed=True), *columns)

    def spread(self, values: Tensor, n_movies: int) -> Tensor:
        """`values` of the users' ratings, [B, L], as users by movies, 0 elsewhere, [B, n_movies]."""
        values = values * self.mask
        return values.new_zeros(len(values), n_movies).scatter_add(1, self.movie, values)

    def take(self, index: Tensor, mask: Tensor, row: slice | Tensor = slice(None)) -> "PaddedHistory":
        """The ratings at `index`, int64 [B, T], of the users at `row`; valid where `mask`, [B, T], is True."""
        columns = (column[row].gather(1, index) for column in (self.movie, self.rating, self.time))
        return PaddedHistory(self.user[row], *columns, mask, self.request_time[row])

    def rows(self, k: Tensor) -> "PaddedHistory":
        """The histories of the users at `k`, int64 [K], padded to the longest of them."""
        n = max(1, int(self.mask[k].sum(1).max()))
        columns = (column[k, :n] for column in (self.movie, self.rating, self.time, self.mask))
        return PaddedHistory(self.user[k], *columns, self.request_time[k])

    def row(self, k: int) -> "PaddedHistory":
        """The history of user k alone, without padding, [1, L]."""
        return self.rows(torch.tensor([k], device=self.mask.device))

    def window(self, first: Tensor, length: int) -> "PaddedHistory":
        """`length` ratings of each user from position `first`, [B], on, or as many as there are."""
        length = min(length, self.movie.shape[1])
        index = first[:, None] + torch.arange(length, device=first.device)
        return self.take(index.clamp(max=self.movie.shape[1] - 1), index < self.lengths()[:, None])

    def latest(self, length: int) -> "PaddedHistory":
        """The latest `length` ratings of each user."""
        return self.window((self.lengths() - length).clamp(min=0), length)

    def without_each(self) -> "PaddedHistory":
        """For one user with n ratings, n histories: row k is the history without rating k, [n, max(n - 1, 1)]."""
        n = int(self.mask.sum())
        number = torch.arange(n, device=self.mask.device)[:, None]
        others = torch.arange(max(n - 1, 1), device=self.mask.device).expand(n, -1)
        mask = others < n - 1
        return self.take(others + (others >= number) * mask, mask, row=torch.zeros_like(number).squeeze(1))


@dataclass(frozen=True)
class History:
    """The known ratings of all users: those of user u, oldest first, are rows offsets[u] : offsets[u + 1]."""

    offsets: Tensor  # int64 [n_users + 1]
    movie: Tensor  # int64 [n]
    rating: Tensor  # float32 [n]
    time: Tensor  # int64 [n]

    @classmethod
    def of(cls, user: Tensor, movie: Tensor, rating: Tensor, time: Tensor, n_users: int) -> "History":
        """From columns that are sorted by user, then time."""
        return cls(offsets(torch.bincount(user, minlength=n_users), closed=True), movie, rating, time)

    def to(self, device: torch.device) -> "History":
        return History(*(column.to(device) for column in vars(self).values()))

    def between(self, first: int, last: int) -> "History":
        """The ratings of the users from `first` to before `last`, renumbered from 0."""
        rows = slice(int(self.offsets[first]), int(self.offsets[last]))
        columns = (column[rows] for column in (self.movie, self.rating, self.time))
        return History(self.offsets[first : last + 1] - self.offsets[first], *columns)

    def users(self) -> Tensor:
        """The user of each rating, [n]."""
        return torch.repeat_interleave(self.offsets.diff())

    def lengths(self, users: Tensor) -> Tensor:
        return self.offsets[users + 1] - self.offsets[users]

    def latest_times(self) -> Tensor:
        """The time of each user's latest rating, [n_users]; 0 without ratings."""
        times = self.time.new_zeros(len(self.offsets) - 1)
        rated = self.offsets.diff() > 0
        times[rated] = self.time[self.offsets[1:][rated] - 1]
        return times

    def pad(self, users: Tensor, request_time: Tensor | None = None) -> PaddedHistory:
        """The histories of these users, [B], whose requests are at these times, int64 [B]."""
        length = self.lengths(users)[:, None]
        step = torch.arange(int(length.max().clamp(min=1)), device=users.device)
        mask = step < length
        row = torch.where(mask, self.offsets[users][:, None] + step, 0)
        if not len(self.movie):  # nobody has rated anything
            empty = torch.zeros_like(row)
            columns = empty, empty.float(), empty, mask
        else:
            columns = self.movie[row], self.rating[row], self.time[row], mask
        return PaddedHistory(users, *columns, latest_times(*columns[2:]) if request_time is None else request_time)


def longest_gap(history: History) -> int:
    """The longest time between successive ratings of a user, without outliers, in seconds.

    Rounded up to two significant digits, so that it reveals no user's exact gap.
    """
    apart = history.time.diff()[history.users().diff() == 0].sort().values
    longest = max(0, int(apart[-min(MIN_GAPS, len(apart) // 10 + 1)])) if len(apart) else 0
    unit = 10 ** max(0, len(str(longest)) - 2)
    return -(-longest // unit) * unit


def latest_times(time: Tensor, mask: Tensor) -> Tensor:
    """The time of each user's latest rating, [B], from times and their mask, [B, L]; 0 without ratings."""
    if not time.shape[1]:
        return time.new_zeros(len(time))
    return (time * mask).gather(1, (mask.sum(1, keepdim=True) - 1).clamp(min=0)).squeeze(1)


def offsets(sizes: Tensor, closed: bool = False) -> Tensor:
    """Where each of consecutive groups of these sizes begins; `closed`: and where the last one ends."""
    ends = sizes.cumsum(0)
    return torch.cat([ends.new_zeros(1), ends]) if closed else ends - sizes


def cumcount(group: Tensor) -> Tensor:
    """How many equal values come before each, [n]."""
    order = torch.argsort(group, stable=True)
    size = torch.bincount(group)
    count = torch.empty_like(group)
    count[order] = torch.arange(len(group), device=group.device) - torch.repeat_interleave(offsets(size), size)
    return count


def pad_batch(batch: Batch) -> tuple[PaddedHistory, tuple[Tensor, Tensor]]:
    """A batch's rows as histories, one per user, in the rows' order; and each row's position in them, [B] and [B]."""
    users, row = torch.unique(batch["user"], return_inverse=True)
    column = cumcount(row)
    shape = len(users), int(column.max()) + 1

    def spread(values: Tensor) -> Tensor:
        return values.new_zeros(shape).index_put((row, column), values)

    rating = batch["rating"] if "rating" in batch else torch.zeros_like(row, dtype=torch.float32)
    time, mask = spread(batch["time"]), spread(torch.ones_like(row).bool())
    history = PaddedHistory(users, spread(batch["movie"]), spread(rating), time, mask, latest_times(time, mask))
    return history, (row, column)


def group_by_size(order: list[int], size: list[int], limit: int) -> list[list[int]]:
    """Cut `order` into groups of one item, or of items k whose sizes, size[k], add up to at most `limit`."""
    groups: list[list[int]] = []
    total = 0
    for item in order:
        if not groups or total + size[item] > limit:
            groups.append([])
            total = 0
        groups[-1].append(item)
        total += size[item]
    return groups
