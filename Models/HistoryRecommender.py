"""The history model: a user's other ratings, as a Gaussian process, around what an NCF expects of the movie.

A rating is predicted from the user's other ratings, weighted by how alike the movies are and how close in time:

    stars(u, i, t) = m(u, i, t) + sum_j K((i, t), (j, t_j)) a_j        a = (K + 1)^-1 (r_u - m)

K says how much two ratings of one user have in common, m is the expectation before any of them is known:

    K((i, t), (j, s)) = c + k0(z_i, z_j) + sum_w exp(-|t - s| / w) (a_w + b_w z_i · z_j)
    k0(z, z')         = z · z' + c_2 cos(z, z')^2 + c_6 exp(6 cos(z, z') - 6)
    m(u, i, t)        = mean + b_i + w · f_i + z_i · h_u + MLP([h_u, z_i, x_uit])
    z_i = q_i + W f_i + n_i^-1/2 sum_v y_v             v: the users who rated i in training
    h_u = n_u^-1/2 sum_j x_j + C x_uit                 j: the movies that u rated in training, i left out
    f_i = [title vector, genres, release decade]       x_uit = [demographics of u, clock of t]

z · z' is matrix factorisation with the user's factors integrated out (Lawrence and Urtasun 2009, "Non-linear matrix
factorization with Gaussian processes"), the sums are those of SVD++ (Koren 2008), on both sides, and the MLP is that of
He et al. 2017. A new user lacks nothing but y_v. Training maximises the evidence, the probability of each user's
ratings with the user's factors integrated out (Rasmussen and Williams 2006, "Gaussian Processes", equation 2.30), less
the divergence of the movies' vectors from their prior.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from Models.dataLoader import consecutive
from Models.Dataset import Batch, Output
from Models.evidence import Evidence, with_noise
from Models.histories import (
    DAY,
    N_CLOCK,
    Histories,
    Past,
    SumOfUsers,
    clock_features,
    padded,
    running_count,
    starts,
)
from Models.inputs import DECADES, DataSizes, FeatureConfig, Known, decades, prepared
from utils.cli import count, flag, not_negative, positive, share
from utils.files import UserError

TIME_SCALES = (1.0, 30.0, 400.0, 1_800.0, DAY, 60 * DAY)  # the w of K, in seconds: a page of ratings to a season
LONGEST = 8_000  # training ratings of a user
BYTES_A_PAIR = 100  # of a user's ratings, in a training step; measured: 78 to 135
ROWS_TOGETHER = 8192  # past and asked ratings predicted at a time: bounds memory


@dataclass(frozen=True)
class HistoryConfig(FeatureConfig):
    """What the history model is made of."""

    embedding: int = flag(32, "numbers in a movie's vector", type=positive)
    units: int = flag(64, "units of the MLP's layer; 0: no MLP", type=count)
    context: tuple[Literal["time", "year", "demographics"], ...] = flag(("time", "year", "demographics"), "inputs")
    history_dropout: float = flag(0.0, "share of users trained without history vectors, as new ones come", type=share)
    history_precision: float = flag(10.0, "prior precision of the movies' history vectors", type=not_negative)
    audience_precision: float = flag(500.0, "prior precision of the users' audience vectors", type=not_negative)
    feature_precision: float = flag(2000.0, "prior precision of the weights of movie features", type=not_negative)
    bias_precision: float = flag(3.0, "prior precision of the movies' biases", type=not_negative)


class Posterior(nn.Module):
    """Vectors as far as the ratings tell: independent Gaussians (mean field), in training a sample of them."""

    def __init__(self, n: int, size: int, std: float):
        super().__init__()
        self.mean = nn.Parameter(std * torch.randn(n, size))
        self.log_std = nn.Parameter(torch.full((n, size), 0.05).log())

    def forward(self) -> Tensor:
        return self.mean + self.log_std.exp() * torch.randn_like(self.mean) if self.training else self.mean

    def variance(self) -> Tensor:
        return (2 * self.log_std).exp()

    def divergence(self, precision: float | None) -> Tensor:
        """Kullback-Leibler divergence from the prior N(0, 1 / precision), up to a constant.

        Without a precision, each dimension has the one that makes this least (empirical Bayes).
        """
        square = (self.mean.square() + self.variance()).sum(0)
        prior = 0.5 * len(self.mean) * square.log() if precision is None else 0.5 * precision * square
        return prior.sum() - self.log_std.sum()


class HistoryRecommender(Histories):
    """The model of this file's head."""

    def __init__(self, config: HistoryConfig, sizes: DataSizes, known: Known | None = None):
        super().__init__(sizes, known)
        self.config = config
        if known and (longest := int(self.count_of_user.max())) > LONGEST:
            raise UserError(
                f"A user has {longest:,} training ratings, and the history model's memory grows with their square, to "
                f"about {longest**2 * BYTES_A_PAIR / 2**30:.0f} GiB: take --preset ncf."
            )
        if known:
            self.features = prepared(known.features, config, sizes)
        self.register_buffer("by_movie", torch.argsort(self.movie, stable=True))
        d = config.embedding
        n_features = sizes.n_title + sizes.n_genres + len(DECADES)
        n_context = sizes.n_user_features + N_CLOCK
        self.movies = Posterior(sizes.n_movies, d, 0.1 / d**0.5)
        self.history = Posterior(sizes.n_movies, d, 0.0)
        self.audience = nn.Parameter(torch.zeros(sizes.n_users, d))
        self.bias = nn.Parameter(torch.zeros(sizes.n_movies))
        self.feature_weights = nn.Parameter(torch.zeros(n_features, d + 1))
        self.context_weights = nn.Linear(n_context, d + 1, bias=False)
        nn.init.zeros_(self.context_weights.weight)
        if config.units:
            self.mlp = nn.Sequential(nn.Linear(2 * d + n_context, config.units), nn.ReLU(), nn.Linear(config.units, 1))
            nn.init.zeros_(self.mlp[2].weight)
        self.mean = nn.Parameter(torch.tensor(sizes.mean_rating))
        self.log_noise = nn.Parameter(torch.tensor(-0.2))  # of the variance of a rating, in squared stars
        self.log_constant = nn.Parameter(torch.tensor(0.2).log())  # the logarithms of c, c_2 and c_6, a_w and b_w
        self.log_cosine = nn.Parameter(torch.full((2,), -3.0))
        self.log_time = nn.Parameter(torch.tensor([[-4.0], [-3.0]]).repeat(1, len(TIME_SCALES)))

    def forward(self, batch: Batch) -> Output:
        """Predicted stars and, in training, the loss for each rating.

        In training, each rating is predicted from the user's others; otherwise from the training ratings.
        """
        if not self.training:
            return Output(self.from_history(batch))
        users, place = torch.unique(batch["user"], return_inverse=True)
        column = running_count(place)
        rows = padded(place, column, batch)
        side = self.movie_side()
        loss, left_out_error = self.evidence(side, rows, self.user_features[users])
        loss = (loss + self.divergence() * len(place) / self.sizes.n_history) / len(place)
        return Output(batch["rating"] - left_out_error[place, column], loss, len(place))

    def from_history(self, batch: Batch) -> Tensor:
        """Predicted stars of the rows, [B]; users with about as long a past are computed together."""
        users, place = torch.unique(batch["user"], return_inverse=True)
        length = self.count_of_user[users]
        size = (length + torch.bincount(place)).tolist()
        side, stars = self.movie_side(), torch.empty(len(place), device=place.device)
        for group in consecutive(length.argsort().tolist(), size, ROWS_TOGETHER):
            rows = torch.isin(place, torch.tensor(group, device=place.device)).nonzero().squeeze(1)
            some, row = torch.unique(batch["user"][rows], return_inverse=True)
            column = running_count(row)
            asked = padded(row, column, {name: values[rows] for name, values in batch.items()})
            found = self.predict(side, self.past(some), self.user_features[some], asked.movie, asked.time)
            stars[rows] = found[row, column]
        return stars

    # --- movies ----------------------------------------------------------------------------------

    def movie_side(self) -> dict[str, Tensor]:
        """Of every movie: z_i, its bias and its history vector, [n_movies, D], [n_movies] and [n_movies, D]."""
        released = decades(self.year) * ("year" in self.config.context)
        from_features = torch.cat([self.features, released], 1) @ self.feature_weights  # [M, D + 1]
        factors = self.movies() + from_features[:, :-1] + self.audience_sum()
        return {"factors": factors, "bias": self.bias + from_features[:, -1], "history": self.history()}

    def audience_sum(self) -> Tensor:
        """n_i^-1/2 times the sum of the audience vectors of the users who rated i in training, [n_movies, D]."""
        users, movies = self.count_of_user, self.count_of_movie
        total = SumOfUsers.apply(self.audience, self.user[self.by_movie], starts(movies), self.movie, starts(users))
        return total / movies.clamp(min=1).sqrt()[:, None]

    def divergence(self) -> Tensor:
        """What the loss adds once for all ratings: priors of what is learned."""
        c = self.config
        penalties = (
            (c.audience_precision, self.audience),
            (c.feature_precision, self.feature_weights),
            (c.bias_precision, self.bias),
        )
        points = sum(0.5 * precision * part.square().sum() for precision, part in penalties)
        return self.movies.divergence(None) + self.history.divergence(c.history_precision) + points

    # --- the Gaussian process --------------------------------------------------------------------

    def evidence(self, side: dict[str, Tensor], past: Past, user_features: Tensor) -> tuple[Tensor, Tensor]:
        """Negative log evidence of the users' ratings, a scalar, and each rating's error when left out, [B, L]."""
        scale = self.certainty(past)
        mean = self.expected(side, past, user_features, past.movie, past.time, left_out=True)
        kernel = self.kernel(
            side["factors"][past.movie] * scale, past.time, side["factors"][past.movie] * scale, past.time
        )
        return Evidence.apply(
            with_noise(kernel, past.real), (past.stars - mean) * past.real, self.log_noise, past.count()
        )

    def predict(
        self, side: dict[str, Tensor], past: Past, user_features: Tensor, movie: Tensor, time: Tensor
    ) -> Tensor:
        """Predicted stars of movies at times, [B, T], by B users with these past ratings."""
        scale = self.certainty(past)
        z_past, z = side["factors"][past.movie] * scale, side["factors"][movie] * scale
        mean_past = self.expected(side, past, user_features, past.movie, past.time, left_out=True)
        factor = torch.linalg.cholesky(with_noise(self.kernel(z_past, past.time, z_past, past.time), past.real))
        weights = torch.cholesky_solve(((past.stars - mean_past) * past.real)[..., None], factor)  # [B, L, 1]
        shared = self.kernel(z, time, z_past, past.time) * past.real[:, None]
        return self.expected(side, past, user_features, movie, time) + (shared @ weights).squeeze(-1)

    def kernel(self, z: Tensor, time: Tensor, z_other: Tensor, time_other: Tensor) -> Tensor:
        """K of each pair of ratings, [B, T, L], in units of the noise."""
        product = z @ z_other.mT
        length, length_other = ((part.square().sum(-1) + 1e-3).sqrt() for part in (z, z_other))
        cosine = product / (length[:, :, None] * length_other[:, None])
        c_2, c_6 = self.log_cosine.exp()
        kernel = self.log_constant.exp() + product + c_2 * cosine.square() + c_6 * torch.exp(6 * cosine - 6)
        if "time" not in self.config.context:
            return kernel
        apart = (time[:, :, None] - time_other[:, None]).abs().float()
        near = torch.stack([torch.exp(apart / -scale) for scale in TIME_SCALES])  # [W, B, T, L]
        alone, times = (self.log_time.exp() @ near.flatten(1)).view(2, *product.shape)
        return kernel + alone + times * product

    def certainty(self, past: Past) -> Tensor:
        """How far uncertain movie vectors hold back the user's, [B, 1, D]: (1 + sum_j var q_j)^-1/2."""
        uncertain = (self.movies.variance()[past.movie] * past.real[..., None]).sum(1, keepdim=True)
        return (1 + uncertain).rsqrt()

    def expected(
        self,
        side: dict[str, Tensor],
        past: Past,
        user_features: Tensor,
        movie: Tensor,
        time: Tensor,
        left_out: bool = False,
    ) -> Tensor:
        """m(u, i, t) of movies at times, [B, T]; `left_out`: they are the past's own, each left out of its sum."""
        vectors = side["history"][past.movie] * past.real[..., None]  # [B, L, D]
        total, n = vectors.sum(1, keepdim=True), past.count()[:, None, None]
        taste = (total - vectors) / (n - 1).clamp(min=1).sqrt() if left_out else total / n.clamp(min=1).sqrt()
        if self.training and self.config.history_dropout:
            taste = taste * (torch.rand(len(taste), 1, 1, device=taste.device) >= self.config.history_dropout)
        context = self.context(past, user_features, movie, time)  # [B, T, C]
        from_context = self.context_weights(context)
        taste = taste + from_context[..., :-1]
        z = side["factors"][movie]
        stars = self.mean + side["bias"][movie] + from_context[..., -1] + (taste * z).sum(-1)
        if self.config.units:
            stars = stars + self.mlp(torch.cat([taste, z, context], -1)).squeeze(-1)
        return stars

    def context(self, past: Past, user_features: Tensor, movie: Tensor, time: Tensor) -> Tensor:
        """x_uit, [B, T, n_user_features + N_CLOCK]; zeros for what is switched off."""
        demographics = user_features[:, None].expand(-1, movie.shape[1], -1) * ("demographics" in self.config.context)
        clock = clock_features(past, time, self.year[movie]) * ("time" in self.config.context)
        return torch.cat([demographics, clock], -1)

    def score(self, users: Tensor) -> Tensor:
        """Predicted stars, not clipped, of every movie right after each user's last rating: [N, n_movies]."""
        side = self.movie_side()
        return torch.cat([self.at_the_end(side, self.past(user), self.user_features[user]) for user in users.split(1)])

    def score_past(self, past: Past) -> Tensor:
        """The same for new users with these ratings, of whom nothing else is known: [B, n_movies]."""
        side, nothing = self.movie_side(), self.user_features.new_zeros(1, self.sizes.n_user_features)
        return torch.cat([self.at_the_end(side, past.row(k), nothing) for k in range(len(past.movie))])

    def movie_vectors(self) -> Tensor:
        """z of every movie, [n_movies, D]."""
        return self.movie_side()["factors"]

    def at_the_end(self, side: dict[str, Tensor], past: Past, user_features: Tensor) -> Tensor:
        """Predicted stars of every movie by one user, right after the past's last rating, [1, n_movies]."""
        movies = torch.arange(self.sizes.n_movies, device=past.movie.device)[None]
        now = torch.where(past.real, past.time, 0).max() if past.real.any() else self.time.max()
        return self.predict(side, past, user_features, movies, now.expand_as(movies))
