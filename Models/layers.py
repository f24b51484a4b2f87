"""What several models are made of: Gaussian parameters, sums over raters, and the clock of a rating."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from Models.sequences import History

DAY = 86_400.0  # seconds
N_CLOCK = 7


class Posterior(nn.Module):
    """Vectors as far as the ratings tell: independent Gaussians (mean field), in training a sample of them."""

    def __init__(self, n: int, dim: int, std: float):
        super().__init__()
        self.mean = nn.Parameter(std * torch.randn(n, dim))
        self.log_std = nn.Parameter(torch.full((n, dim), 0.05).log())

    def forward(self) -> Tensor:
        return self.mean + self.log_std.exp() * torch.randn_like(self.mean) if self.training else self.mean

    def variance(self) -> Tensor:
        return (2 * self.log_std).exp()

    def prior_variance(self) -> Tensor:
        """The variance of each dimension's prior that makes the divergence least (empirical Bayes), [D]."""
        return (self.mean.square() + self.variance()).mean(0)

    def divergence(self, precision: float | None = None) -> Tensor:
        """Kullback-Leibler divergence from the prior N(0, 1 / precision), up to a constant.

        Without a precision, each dimension has the one that makes this least.
        """
        square = (self.mean.square() + self.variance()).sum(0)
        prior = 0.5 * len(self.mean) * square.log() if precision is None else 0.5 * precision * square
        return prior.sum() - self.log_std.sum()


class SumOverRaters(torch.autograd.Function):
    """Of each movie, the sum of the vectors of the users who rated it; its gradient is the same sum the other way."""

    @staticmethod
    def forward(ctx, vectors: Tensor, users: Tensor, start: Tensor, movies: Tensor, start_back: Tensor) -> Tensor:
        """`users` of movie after movie, the first of each at `start`; `movies` of user after user likewise."""
        ctx.save_for_backward(movies, start_back)
        return F.embedding_bag(users, vectors, start, mode="sum")

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return F.embedding_bag(ctx.saved_tensors[0], gradient, ctx.saved_tensors[1], mode="sum"), *[None] * 4


def clock(history: History, user: Tensor, time: Tensor, year: Tensor) -> Tensor:
    """When in the user's history, the day, the week and the movie's life ratings are: [B, N_CLOCK].

    Args:
        user: whose history in `history`, [B]
        time: of the ratings, [B]
        year: release years of their movies, 0 where unknown, [B]
    """
    start, n = history.offsets[user], history.lengths(user)
    some = len(history.time) > 0
    first = torch.where(n > 0, history.time[start.clamp(max=len(history.time) - 1)], time) if some else time
    position = count_before(history, user, time) if some else torch.zeros_like(time)
    return clock_numbers(time, first, position, year)


def clock_numbers(time: Tensor, first: Tensor, position: Tensor, year: Tensor) -> Tensor:
    """The clock of ratings at `time`, [..., N_CLOCK].

    Args:
        first: the time of the user's first rating
        position: how many ratings of the user are older
        year: release year of the movie, 0 where unknown
    """
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


def count_before(history: History, user: Tensor, time: Tensor) -> Tensor:
    """How many ratings of the user's history are older than `time`, [B]."""
    least = history.time.min()
    span = history.time.max() - least + 2  # times of one user are less than this apart
    keys = history.users() * span + (history.time - least)  # ascending
    return torch.searchsorted(keys, user * span + (time - least).clamp(min=0).minimum(span - 1)) - history.offsets[user]
