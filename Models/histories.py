"""Users' past ratings as tensors: padding, clocks, and sums over who rated what."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from Models.Dataset import Batch, Batching
from Models.inputs import DataSizes, Known

DAY = 86_400.0
N_CLOCK = 7


@dataclass(frozen=True)
class Past:
    """Ratings of B users behind each other, oldest first, padded to the longest: each [B, L]."""

    movie: Tensor
    stars: Tensor
    time: Tensor  # seconds, int64
    real: Tensor  # bool: False is padding

    def count(self) -> Tensor:
        return self.real.sum(1)

    def row(self, k: int) -> "Past":
        """The past of user k alone, without padding, [1, L]."""
        n = max(1, int(self.count()[k]))
        return Past(*(column[k : k + 1, :n] for column in (self.movie, self.stars, self.time, self.real)))

    def without(self, k: int) -> "Past":
        """The past of one user, [1, L], without its rating k; without any, one of padding is left."""
        others = [j for j in range(self.movie.shape[1]) if j != k] or [k]
        columns = (column[:, others] for column in (self.movie, self.stars, self.time, self.real))
        past = Past(*columns)
        return past if self.movie.shape[1] > 1 else Past(past.movie, past.stars, past.time, torch.zeros_like(past.real))

    def part(self, first: Tensor, length: int) -> "Past":
        """Of each user, `length` ratings from number `first`, [B], on, or as many as there are."""
        length = min(length, self.movie.shape[1])
        place = first[:, None] + torch.arange(length, device=first.device)
        real = place < self.count()[:, None]
        place = place.clamp(max=self.movie.shape[1] - 1)
        return Past(self.movie.gather(1, place), self.stars.gather(1, place), self.time.gather(1, place), real)


def clock_features(past: Past, time: Tensor, year: Tensor) -> Tensor:
    """When in the user's history, the day, the week and the movie's life a rating is: [B, T, N_CLOCK]."""
    sorted_times = torch.where(past.real, past.time, torch.iinfo(torch.int64).max)
    first = torch.where(past.real[:, :1], past.time[:, :1], time)  # without a history, the row's own time
    position = torch.searchsorted(sorted_times, time.contiguous())
    day = 2 * torch.pi * (time % int(DAY)).float() / DAY
    week = 2 * torch.pi * (time % int(7 * DAY)).float() / (7 * DAY)
    age = torch.where(year > 0, 1970 + time.float() / (365.25 * DAY) - year, 0)
    numbers = [
        torch.log1p((time - first).clamp(min=0).float() / DAY) / 4,
        torch.log1p(position.float()) / 4,
        *(day.sin(), day.cos(), week.sin(), week.cos()),
        age.clamp(0, 100) / 25,
    ]
    return torch.stack(numbers, -1)


class Histories(nn.Module):
    """A model that keeps what is known of movies and users, and the training ratings, in its state.

    Its training batches hold whole users: all training ratings of each, by time.
    """

    batching = Batching(whole_users=True, alike=True)

    def __init__(self, sizes: DataSizes, known: Known | None):
        super().__init__()
        self.sizes = sizes
        for name, value in vars(known or Known.blank(sizes)).items():
            self.register_buffer(name, value)
        self.register_buffer("count_of_user", torch.bincount(self.user, minlength=sizes.n_users))
        self.register_buffer("count_of_movie", torch.bincount(self.movie, minlength=sizes.n_movies))

    def past(self, users: Tensor) -> Past:
        """The kept ratings of these users."""
        return take_past(self, self.count_of_user, users)

    def score(self, users: Tensor) -> Tensor:
        """Scores of every movie for the users at these positions, from their kept ratings: [N, n_movies]."""
        return self.score_past(self.past(users))


def take_past(known: Known | Histories, count_of_user: Tensor, users: Tensor) -> Past:
    """The known ratings of these users, of whom each user of the data has so many."""
    count = count_of_user[users][:, None]
    step = torch.arange(int(count.max().clamp(min=1)), device=users.device)
    real = step < count
    row = torch.where(real, starts(count_of_user)[users][:, None] + step, 0)
    return Past(known.movie[row], known.stars[row], known.time[row], real)


class SumOfUsers(torch.autograd.Function):
    """Of each movie, the sum of the vectors of the users who rated it; its gradient is the same sum the other way."""

    @staticmethod
    def forward(ctx, vectors: Tensor, users: Tensor, start: Tensor, movies: Tensor, start_back: Tensor) -> Tensor:
        """`users` of movie after movie, the first of each at `start`; `movies` of user after user likewise."""
        ctx.save_for_backward(movies, start_back)
        return F.embedding_bag(users, vectors, start, mode="sum")

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return F.embedding_bag(ctx.saved_tensors[0], gradient, ctx.saved_tensors[1], mode="sum"), *[None] * 4


def starts(count: Tensor) -> Tensor:
    """Where each group begins, of groups of these sizes behind each other."""
    return count.cumsum(0) - count


def running_count(place: Tensor) -> Tensor:
    """How many equal values stand before each, [n]."""
    order = torch.argsort(place, stable=True)
    count = torch.bincount(place)
    start = torch.repeat_interleave(starts(count), count)
    column = torch.empty_like(place)
    column[order] = torch.arange(len(place), device=place.device) - start
    return column


def padded(place: Tensor, column: Tensor, batch: Batch) -> Past:
    """Flat rows, row k in row place[k] and column column[k] of the result."""
    shape = int(place.max()) + 1, int(column.max()) + 1

    def spread(values: Tensor) -> Tensor:
        return values.new_zeros(shape).index_put((place, column), values)

    stars = batch["rating"] if "rating" in batch else torch.zeros_like(place, dtype=torch.float32)
    return Past(spread(batch["movie"]), spread(stars), spread(batch["time"]), spread(torch.ones_like(place).bool()))
