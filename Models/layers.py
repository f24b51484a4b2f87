"""Parts of the models: Gaussian parameters, sums over raters, clock features, session biases, loss of hidden movies."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from Models.Dataset import Model
from Models.inputs import HIGHEST
from Models.sequences import History, PaddedHistory

DAY = 86_400.0  # seconds
N_CLOCK = 7
RATING_WEIGHTS = (0.05, 0.15, 0.4, 0.8, 1.0)  # input weight of a rating at 1/5, 2/5, ... of the highest
TARGET_WEIGHTS = (0.0, 0.03, 0.15, 1.0, 1.0)  # weight of such a rating's movie as a hidden target
ALL = slice(None)
TYPICAL_LENGTH = 100  # ratings: sums over a history are scaled as if every user had this many
SHOWN = (0.5, 0.9)  # smallest and largest share of a user's ratings that a training step shows


class Posterior(nn.Module):
    """Vectors with a mean-field Gaussian posterior; `forward` returns a sample in training, the mean otherwise."""

    def __init__(self, n: int, dim: int, std: float):
        super().__init__()
        self.mean = nn.Parameter(std * torch.randn(n, dim))
        self.log_std = nn.Parameter(torch.full((n, dim), 0.05).log())

    def forward(self) -> Tensor:
        return self.mean + self.log_std.exp() * torch.randn_like(self.mean) if self.training else self.mean

    def variance(self, index: Tensor | None = None) -> Tensor:
        """The variances of all vectors or of those at `index`, [B, D]."""
        return (2 * (self.log_std if index is None else take(self.log_std, index))).exp()

    def prior_variance(self) -> Tensor:
        """The prior variance of each dimension that minimises the divergence (empirical Bayes), [D]."""
        return (self.mean.square() + self.variance()).mean(0)

    def divergence(self, precision: float | None = None) -> Tensor:
        """Kullback-Leibler divergence from the prior N(0, 1 / precision), up to a constant.

        Without a precision, each dimension uses the one that minimises the divergence.
        """
        square = (self.mean.square() + self.variance()).sum(0)
        prior = 0.5 * len(self.mean) * square.log() if precision is None else 0.5 * precision * square
        return prior.sum() - self.log_std.sum()


class ItemTower(Model):
    """Base of models that compute the user-independent part of their movies in `item_tower`.

    Without gradients, its result is cached until a parameter or buffer changes or `train` or `eval` is called: steps of
    a fused optimizer and changes through `.data` leave no other trace.
    """

    _items: tuple[list[tuple[int, int, int]], Any] | None = None

    def train(self, mode: bool = True) -> "ItemTower":
        self._items = None
        return super().train(mode)

    def items(self) -> Any:
        """The result of `item_tower`, cached where possible."""
        parts = [*self.parameters(), *self.buffers()]
        if torch.is_grad_enabled() or any(part.is_inference() for part in parts):
            return self.item_tower()
        state = [(id(part), part.data_ptr(), part._version) for part in parts]
        if self._items is None or self._items[0] != state:
            self._items = state, self.item_tower()
        return self._items[1]


def take(table: Tensor, index: Tensor) -> Tensor:
    """table[index], with a gradient that is deterministic for any number of threads."""
    return table.index_select(0, index)


class SumOverRaters(torch.autograd.Function):
    """For each movie, the sum of its raters' vectors; the gradient is the same sum in the other direction."""

    @staticmethod
    def forward(ctx, vectors: Tensor, users: Tensor, start: Tensor, movies: Tensor, start_back: Tensor) -> Tensor:
        """`users` are grouped by movie, group i from start[i] on; `movies` by user, in the same way."""
        ctx.save_for_backward(movies, start_back)
        return F.embedding_bag(users, vectors, start, mode="sum")

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return F.embedding_bag(ctx.saved_tensors[0], gradient, ctx.saved_tensors[1], mode="sum"), *[None] * 4


def place_in_history(history: History, user: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
    """The time of the user's first rating (`time` if none) and how many are older than `time`: int64 [B] each."""
    if not len(history.time):
        return time, torch.zeros_like(time)
    start, n = history.offsets[user], history.lengths(user)
    first = torch.where(n > 0, history.time[start.clamp(max=len(history.time) - 1)], time)
    return first, count_before(history, user, time)


def clock_numbers(time: Tensor, first: Tensor, position: Tensor, year: Tensor) -> Tensor:
    """Clock features of ratings at `time`, [..., N_CLOCK]; the arguments broadcast against each other.

    Args:
        first: the time of the user's first rating
        position: how many of the user's ratings are older
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
    return torch.stack(torch.broadcast_tensors(*numbers), -1)


def count_before(history: History, user: Tensor, time: Tensor) -> Tensor:
    """How many ratings of the user's history are older than `time`, [B], by bisection over all rows at once."""
    low, high = history.offsets[user], history.offsets[user + 1]
    for _ in range(int((high - low).max()).bit_length() if len(user) else 0):
        middle = (low + high) // 2
        is_older = (middle < high) & (history.time[middle.clamp(max=len(history.time) - 1)] < time)
        low, high = torch.where(is_older, middle + 1, low), torch.where(is_older, high, middle)
    return low - history.offsets[user]


class SessionBiases(nn.Module):
    """How far a session's ratings lie above the user's others: one Gaussian for each training session.

    A session is a run of a user's ratings without a break longer than a given time. Several such times give nested
    sessions, whose biases are added (after the day biases of Koren 2009, "Collaborative Filtering with Temporal
    Dynamics").

    Args:
        known: the training ratings
        breaks: the longest break within a session, in seconds, for each kind of session
    """

    def __init__(self, known: History, breaks: tuple[int, ...]):
        super().__init__()
        self.breaks = breaks
        user = known.users()
        numbers = user.new_empty(len(breaks), len(user))  # the session of each training rating
        for row, seconds in zip(numbers, breaks, strict=True):
            starts = (user.diff(prepend=user[:1] - 1) != 0) | (known.time.diff(prepend=known.time[:1]) > seconds)
            row[:] = starts.cumsum(0) - 1
        self.register_buffer("numbers", numbers, persistent=False)
        self.biases = nn.ModuleList(Posterior(int(row[-1]) + 1, 1, 0.01) for row in numbers)

    def forward(self, known: History, user: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of the summed biases at these times, [B] each; 0 outside all sessions and for new users.

        Args:
            known: the training ratings
            user: indices, NEW_USER for new users, [B]
            time: [B]
        """
        is_known, user = user >= 0, user.clamp(min=0)
        later = known.offsets[user] + count_before(known, user, time + 1)  # the user's first later rating
        has_earlier, has_later = later > known.offsets[user], later < known.offsets[user + 1]
        earlier, later = (later - 1).clamp(min=0), later.clamp(max=len(known.time) - 1)
        mean = variance = torch.zeros_like(time, dtype=torch.float32)
        for seconds, numbers, bias in zip(self.breaks, self.numbers, self.biases, strict=True):
            in_earlier = is_known & has_earlier & (time - known.time[earlier] <= seconds)
            in_later = is_known & has_later & (known.time[later] - time <= seconds)
            session, found = numbers[torch.where(in_earlier, earlier, later)], in_earlier | in_later
            mean = mean + found * take(bias.mean, session).squeeze(1)
            variance = variance + found * bias.variance(session).squeeze(1)
        return mean, variance

    def divergence(self) -> Tensor:
        return sum(bias.divergence() for bias in self.biases)


def rating_weights(rating: Tensor, steps: Tensor | tuple[float, ...] = RATING_WEIGHTS) -> Tensor:
    """Weights of ratings: `steps` at 1/5, 2/5, ... of the highest, linearly interpolated."""
    steps = torch.as_tensor(steps, device=rating.device)
    n = len(steps)
    position = (rating / HIGHEST * n - 1).clamp(0, n - 1)
    shares = (1 - (position[..., None] - torch.arange(n, device=rating.device)).abs()).clamp(min=0)  # of the next steps
    return shares.to(steps.dtype) @ steps


def draw_candidates(
    history: PaddedHistory, n_movies: int, n_others: int
) -> tuple[PaddedHistory, Tensor | slice, Tensor]:
    """The candidates of a training step's softmax: the movies that its users rated, and a random sample of the others.

    Each sampled movie stands for several, so that the softmax's denominator is right on average (Bengio and Senecal
    2003, "Quick Training of Probabilistic Neural Nets by Importance Sampling").

    Args:
        n_others: how many (at least one) are drawn from the movies that none of the users rated; all if no more exist

    Returns:
        the history with its movies renumbered as candidates; the candidates, int64 [K] ascending, or a slice for all;
        the term to add to their scores, [K] or a scalar
    """
    is_candidate = torch.zeros(n_movies, dtype=torch.bool, device=history.movie.device)
    is_candidate[history.movie[history.mask]] = True
    others = (~is_candidate).nonzero().squeeze(1)
    if len(others) <= n_others:
        return history, ALL, history.rating.new_zeros(())
    drawn = others[torch.randperm(len(others), device=others.device)[:n_others]]
    log_weight = history.rating.new_zeros(n_movies).index_fill_(0, drawn, math.log(len(others) / n_others))
    movies = is_candidate.index_fill_(0, drawn, True).nonzero().squeeze(1)
    number = torch.searchsorted(movies, history.movie * history.mask).clamp(max=len(movies) - 1)
    return dataclasses.replace(history, movie=number), movies, log_weight[movies]


def loss_of_hidden(history: PaddedHistory, logits: Callable[[PaddedHistory], Tensor]) -> Tensor:
    """The mean loss per user of predicting, among all movies not shown, the hidden ones that the user rated highly.

    The cross-entropy of a denoising autoencoder (Wu et al. 2016, "Collaborative Denoising Auto-Encoders") with a
    softmax over the catalogue (Liang et al. 2018, "Variational Autoencoders for Collaborative Filtering"); users with
    many hidden movies count more, but only by the square root of their number.

    Args:
        logits: returns the scores of the K candidate movies, [B, K], for histories in which some ratings are hidden;
            the histories number these movies from 0 to K - 1
    """
    low, high = SHOWN
    draw, share = torch.rand_like(history.rating), torch.rand(len(history.user), 1, device=history.rating.device)
    shown = draw < low + (high - low) * share
    scores = logits(dataclasses.replace(history, mask=history.mask & shown))
    n_movies = scores.shape[1]
    targets = history.spread(rating_weights(history.rating, TARGET_WEIGHTS) * ~shown, n_movies)
    is_shown = history.spread(shown.float(), n_movies) > 0
    log_p = F.log_softmax(scores.masked_fill(is_shown, -torch.inf), 1)
    found = torch.where(targets > 0, targets * log_p, 0.0).sum(1)
    return -(found / targets.sum(1).clamp(min=1e-6).sqrt()).mean()
