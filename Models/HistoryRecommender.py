"""The history model: a Gaussian process over the user's ratings, with an NCF as its prior mean.

A rating is predicted from the user's other ratings, weighted by how similar the movies and how close the times are:

    prediction(u, i, t) = m(u, i, t) + sum_j K((i, t), (j, t_j)) a_j        a = (K + 1)^-1 (r_u - m)

K is the covariance of two ratings of one user, m the prior mean, before any of the user's ratings is known:

    K((i, t), (j, s)) = c + k0(z_i, z_j) + sum_w exp(-|t - s| / w) (a_w + b_w z_i · z_j)
    k0(z, z')         = z · z' + c_2 cos(z, z')^2 + c_6 exp(6 cos(z, z') - 6)
    m(u, i, t)        = mean + b_i + w · f_i + z_i · h_u + MLP([h_u, z_i, x_uit])
    z_i = q_i + W f_i + n_i^-1/2 sum_v y_v             v: the users who rated i in training
    h_u = n_u^-1/2 sum_j x_j + C x_uit                 j: the movies in u's history, except i
    f_i = [title vector, genres, release decade]       x_uit = [demographics of u, clock of t]

z · z' is matrix factorisation with the user's factors integrated out (Lawrence and Urtasun 2009, "Non-linear matrix
factorization with Gaussian processes"). The sums are those of SVD++ (Koren 2008), on both sides: x_j are implicit item
factors, y_v implicit user factors. The MLP is that of He et al. 2017. Only y_v is learned for a single user, so new
users need ratings but no training. Training maximises the log marginal likelihood of each user's ratings
(Rasmussen and Williams 2006, "Gaussian Processes", equation 2.30), less the divergence of the movies' vectors from
their prior.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from Models.Dataset import Batch, TrainingOutput, UserBatches
from Models.inputs import (
    DECADES,
    DataStats,
    Fraction,
    ModelInputs,
    NonNegFloat,
    NonNegInt,
    PositiveInt,
    decades,
)
from Models.layers import DAY, N_CLOCK, ItemTower, Posterior, SumOverRaters, clock_numbers
from Models.sequences import History, PaddedHistory, group_by_size, offsets, pad_batch

TIME_SCALES = (1.0, 30.0, 400.0, 1_800.0, DAY, 60 * DAY)  # the w of K, in seconds: from a page of ratings to a season
CHUNK_RATINGS = 8192  # history and requested ratings handled at a time: bounds memory
CHUNK_PAIRS = 16_000_000  # pairs of these for which K is computed at a time


@dataclass(frozen=True)
class HistoryConfig:
    """Settings of the history model."""

    embedding_dim: PositiveInt = 32
    """size of a movie's vector"""
    hidden_dim: NonNegInt = 64
    """units of the MLP's hidden layer; 0: no MLP"""
    context: tuple[Literal["time", "year", "demographics"], ...] = ("time", "year", "demographics")
    """context inputs; those that the data lacks are left out, with a notice"""
    max_length: PositiveInt = 2500
    """ratings read per user: the latest, in training any consecutive ones; memory grows with the square"""
    history_dropout: Fraction = 0.0
    """share of users whose implicit item factors are dropped in a training step, to serve users without a history"""
    history_precision: NonNegFloat = 10.0
    """prior precision of the implicit item factors"""
    audience_precision: NonNegFloat = 500.0
    """prior precision of the implicit user factors"""
    feature_precision: NonNegFloat = 2000.0
    """prior precision of the weights of movie features"""
    bias_precision: NonNegFloat = 3.0
    """prior precision of the movies' biases"""

    task: ClassVar = "rating"


class HistoryRecommender(ItemTower):
    """The Gaussian process of the formulas above."""

    unsupported_devices = ("mps",)  # PyTorch's Cholesky factors are incomplete there

    def __init__(self, config: HistoryConfig, stats: DataStats, inputs: ModelInputs):
        super().__init__()
        self.config, self.stats = config, stats
        self.context, self.notices = available_context(config, stats)
        self.batching = UserBatches(size_in="ratings", longest=config.max_length)
        known = inputs.training()
        raters = known.users()[torch.argsort(known.movie, stable=True)]
        for name, value in {
            "features": inputs.features,
            "year": inputs.year,
            "user_features": inputs.user_features,
            "rated_movies": known.movie,
            "offset_of_user": known.offsets[:-1],
            "raters": raters,
            "n_of_movie": inputs.count,
        }.items():
            self.register_buffer(name, value, persistent=False)
        dim = config.embedding_dim
        n_context = stats.n_user_features + N_CLOCK
        self.movies = Posterior(stats.n_movies, dim, 0.1 / dim**0.5)
        self.history = Posterior(stats.n_movies, dim, 0.0)  # implicit item factors
        self.audience = nn.Parameter(torch.zeros(stats.n_users, dim))  # implicit user factors
        self.bias = nn.Parameter(torch.zeros(stats.n_movies))
        self.feature_weights = nn.Parameter(torch.zeros(stats.n_features + len(DECADES), dim + 1))
        self.context_weights = nn.Linear(n_context, dim + 1, bias=False)
        nn.init.zeros_(self.context_weights.weight)
        if config.hidden_dim:
            layers = nn.Linear(2 * dim + n_context, config.hidden_dim), nn.ReLU(), nn.Linear(config.hidden_dim, 1)
            self.mlp = nn.Sequential(*layers)
            nn.init.zeros_(self.mlp[2].weight)
        self.mean = nn.Parameter(torch.tensor(stats.mean_rating))
        self.log_noise = nn.Parameter(torch.tensor(-0.2))  # log of a rating's noise variance
        self.log_constant = nn.Parameter(torch.tensor(0.2).log())  # here and below, logs of c, c_2 and c_6, a_w and b_w
        self.log_cosine = nn.Parameter(torch.full((2,), -3.0))
        self.log_time = nn.Parameter(torch.tensor([[-4.0], [-3.0]]).repeat(1, len(TIME_SCALES)))
        self.log_time.requires_grad_("time" in self.context)

    def tables(self) -> dict[str, list[Tensor]]:
        """The parameters with one row per user, and those with one row per movie."""
        vectors = [*self.movies.parameters(), *self.history.parameters()]
        return {"user": [self.audience], "movie": [*vectors, self.bias]}

    def forward(self, batch: Batch) -> TrainingOutput:
        """The training loss per rating, for a batch of whole users.

        `prediction` is leave-one-out: each rating is predicted from the user's others.
        """
        history, where = pad_batch(batch)
        n = len(batch["rating"])
        with torch.autocast(history.rating.device.type, enabled=False):  # a rounded covariance may be indefinite
            loss, loo_error = self.log_marginal_likelihood(self.item_tower(), history)
        n_training = self.rated_movies.numel()
        loss = (loss + self.divergence() * n / n_training) / n
        return TrainingOutput(loss, n, batch["rating"] - loo_error[where])

    def predict(self, batch: Batch, history: History) -> Tensor:
        """Predicted ratings of the rows, [B], from the users' latest ratings in `history`; not clipped to the scale.

        Users with histories of similar length are computed together.
        """
        users, inverse = torch.unique(batch["user"], return_inverse=True)
        length = history.lengths(users).clamp(max=self.config.max_length)
        size = (length + torch.bincount(inverse)).tolist()
        items, prediction = self.items(), torch.empty(len(inverse), device=inverse.device)
        for group in group_by_size(length.argsort().tolist(), size, CHUNK_RATINGS):
            rows = torch.isin(inverse, torch.tensor(group, device=inverse.device)).nonzero().squeeze(1)
            asked, where = pad_batch({name: values[rows] for name, values in batch.items()})
            found = self.posterior_mean(items, self.latest(history.pad(asked.user)), asked.movie, asked.time)
            prediction[rows] = found[where]
        return prediction

    # --- movies ----------------------------------------------------------------------------------

    def item_tower(self) -> dict[str, Tensor]:
        """For every movie: z_i, bias and implicit item factor, [n_movies, D], [n_movies] and [n_movies, D]."""
        released = decades(self.year) * ("year" in self.context)
        from_features = torch.cat([self.features, released], 1) @ self.feature_weights  # [M, D + 1]
        factors = self.movies() + from_features[:, :-1] + self.audience_sum()
        return {"factors": factors, "bias": self.bias + from_features[:, -1], "history": self.history()}

    def audience_sum(self) -> Tensor:
        """n_i^-1/2 times the sum of the implicit factors of the users who rated i in training, [n_movies, D]."""
        edges = self.raters, offsets(self.n_of_movie), self.rated_movies, self.offset_of_user
        return SumOverRaters.apply(self.audience, *edges) / self.n_of_movie.clamp(min=1).sqrt()[:, None]

    def movie_vectors(self) -> Tensor:
        """z of every movie, [n_movies, D]."""
        return self.items()["factors"]

    def divergence(self) -> Tensor:
        """The term that the loss counts once for all ratings: the priors of the learned parameters."""
        c = self.config
        penalties = (
            (c.audience_precision, self.audience),
            (c.feature_precision, self.feature_weights),
            (c.bias_precision, self.bias),
        )
        points = sum(0.5 * precision * part.square().sum() for precision, part in penalties)
        return self.movies.divergence(None) + self.history.divergence(c.history_precision) + points

    # --- the Gaussian process --------------------------------------------------------------------

    def log_marginal_likelihood(self, items: dict[str, Tensor], history: PaddedHistory) -> tuple[Tensor, Tensor]:
        """Negative log marginal likelihood of the ratings, a scalar, and their leave-one-out errors, [B, L]."""
        z = items["factors"][history.movie] * self.shrinkage(history)
        mean = self.prior_mean(items, history, history.movie, history.time, leave_one_out=True)
        kernel = self.kernel(z, history.time, z, history.time)
        error = (history.rating - mean) * history.mask
        return MarginalLikelihood.apply(with_noise(kernel, history.mask), error, self.log_noise, history.lengths())

    def posterior_mean(self, items: dict[str, Tensor], history: PaddedHistory, movie: Tensor, time: Tensor) -> Tensor:
        """Predicted ratings of movies at times, [B, T], for B users with these histories."""
        scale = self.shrinkage(history)
        z_history = items["factors"][history.movie] * scale
        weights, found = self.weights(items, history, z_history), []
        size = max(1, CHUNK_PAIRS // history.movie.numel()) if history.movie.numel() else movie.shape[1]
        for asked, at in zip(movie.split(size, 1), time.split(size, 1), strict=True):
            shared = self.kernel(items["factors"][asked] * scale, at, z_history, history.time) * history.mask[:, None]
            found.append(self.prior_mean(items, history, asked, at) + (shared @ weights).squeeze(-1))
        return torch.cat(found, 1)

    def latest(self, history: PaddedHistory) -> PaddedHistory:
        """The part of these histories that is read."""
        return history.latest(self.config.max_length)

    def weights(self, items: dict[str, Tensor], history: PaddedHistory, z: Tensor) -> Tensor:
        """a of each rating of the histories, [B, L, 1], 0 at padding; z: their movies' vectors, shrunk, [B, L, D]."""
        mean = self.prior_mean(items, history, history.movie, history.time, leave_one_out=True)
        factor = cholesky(with_noise(self.kernel(z, history.time, z, history.time), history.mask))
        return torch.cholesky_solve(((history.rating - mean) * history.mask)[..., None], factor)

    def kernel(self, z: Tensor, time: Tensor, z_other: Tensor, time_other: Tensor) -> Tensor:
        """K of each pair of ratings, [B, T, L], in units of the noise."""
        product = z @ z_other.mT
        length, length_other = ((part.square().sum(-1) + 1e-3).sqrt() for part in (z, z_other))
        cosine = product / (length[:, :, None] * length_other[:, None])
        c_2, c_6 = self.log_cosine.exp()
        kernel = self.log_constant.exp() + product + c_2 * cosine.square() + c_6 * torch.exp(6 * cosine - 6)
        if "time" not in self.context:
            return kernel
        apart = (time[:, :, None] - time_other[:, None]).abs().float()
        near = torch.stack([torch.exp(apart / -scale) for scale in TIME_SCALES])  # [W, B, T, L]
        alone, times = (self.log_time.exp() @ near.flatten(1)).view(2, *product.shape)
        return kernel + alone + times * product

    def shrinkage(self, history: PaddedHistory) -> Tensor:
        """Factor by which uncertain movie vectors shrink the user's factors, [B, 1, D]: (1 + sum_j var q_j)^-1/2."""
        uncertain = (self.movies.variance()[history.movie] * history.mask[..., None]).sum(1, keepdim=True)
        return (1 + uncertain).rsqrt()

    def prior_mean(
        self,
        items: dict[str, Tensor],
        history: PaddedHistory,
        movie: Tensor,
        time: Tensor,
        leave_one_out: bool = False,
    ) -> Tensor:
        """m(u, i, t) of movies at times, [B, T]; `leave_one_out`: the history's own, each left out of its sum."""
        taste = self.taste(items, history, leave_one_out)
        if self.training and self.config.history_dropout:
            taste = taste * (torch.rand(len(taste), 1, 1, device=taste.device) >= self.config.history_dropout)
        context = self.context_inputs(history, movie, time)  # [B, T, C]
        from_context = self.context_weights(context)
        taste = taste + from_context[..., :-1]
        z = items["factors"][movie]
        mean = self.mean + items["bias"][movie] + from_context[..., -1] + (taste * z).sum(-1)
        if self.config.hidden_dim:
            mean = mean + self.mlp(torch.cat([taste, z, context], -1)).squeeze(-1)
        return mean

    def taste(self, items: dict[str, Tensor], history: PaddedHistory, leave_one_out: bool = False) -> Tensor:
        """h_u without context: n_u^-1/2 sum_j x_j, [B, 1, D]; `leave_one_out`: the sums without each j, [B, L, D]."""
        vectors = items["history"][history.movie] * history.mask[..., None]  # [B, L, D]
        total, n = vectors.sum(1, keepdim=True), history.lengths()[:, None, None]
        return (total - vectors) / (n - 1).clamp(min=1).sqrt() if leave_one_out else total / n.clamp(min=1).sqrt()

    def context_inputs(self, history: PaddedHistory, movie: Tensor, time: Tensor) -> Tensor:
        """x_uit, [B, T, n_user_features + N_CLOCK]; zeros for inputs that are off and new users' demographics."""
        known = (history.user >= 0)[:, None] & ("demographics" in self.context)
        demographics = (self.user_features[history.user.clamp(min=0)] * known)[:, None].expand(-1, movie.shape[1], -1)
        clock = clock_features(history, time, self.year[movie]) * ("time" in self.context)
        return torch.cat([demographics, clock], -1)

    # --- recommending ----------------------------------------------------------------------------

    def score(self, history: PaddedHistory) -> Tensor:
        """Predicted ratings, not clipped, of every movie right after each user's last rating: [B, n_movies]."""
        items, history = self.items(), self.latest(history)
        return torch.cat([self.score_after_last(items, history.row(k)) for k in range(len(history.user))])

    def score_after_last(self, items: dict[str, Tensor], history: PaddedHistory) -> Tensor:
        """`score` for one user, [1, n_movies]; without a history, at the time of the newest training rating."""
        movies = torch.arange(self.stats.n_movies, device=history.movie.device)[None]
        now = history.last_times(without=self.stats.newest)[:, None]
        return self.posterior_mean(items, history, movies, now.expand_as(movies))

    def user_vectors(self, history: PaddedHistory) -> Tensor:
        """The factor of z_i in predictions that does not depend on time: h_u + sum_j a_j z_j, no context, [B, D]."""
        items, history = self.items(), self.latest(history)
        return torch.cat([self.user_vector(items, history.row(k)) for k in range(len(history.user))])

    def user_vector(self, items: dict[str, Tensor], history: PaddedHistory) -> Tensor:
        """`user_vectors` for one user, [1, D]; both z in K's z_i · z_j are shrunk."""
        scale = self.shrinkage(history)
        z = items["factors"][history.movie] * scale
        from_ratings = (self.weights(items, history, z) * z).sum(1, keepdim=True) * scale
        return (self.taste(items, history) + from_ratings).squeeze(1)


def available_context(config: HistoryConfig, stats: DataStats) -> tuple[tuple[str, ...], list[str]]:
    """The context inputs of the config that the data has, and a notice of those that it lacks."""
    lacking = {
        "time": (stats.newest == 0, "no times"),
        "year": (not stats.has_years, "no release years"),
        "demographics": (stats.n_user_features == 0, "no demographics"),
    }
    words = [lacking[name][1] for name in config.context if lacking[name][0]]
    notices = [f"The data has {' and '.join(words)}: trained without them."] if words else []
    return tuple(name for name in config.context if not lacking[name][0]), notices


def clock_features(history: PaddedHistory, time: Tensor, year: Tensor) -> Tensor:
    """Clock features: place in the user's history, time of day and of week, age of the movie, [B, T, N_CLOCK]."""
    sorted_times = torch.where(history.mask, history.time, torch.iinfo(torch.int64).max)
    first = torch.where(history.mask[:, :1], history.time[:, :1], time)  # without a history, the row's own time
    position = torch.searchsorted(sorted_times, time.contiguous())
    return clock_numbers(time, first, position, year)


def with_noise(kernel: Tensor, mask: Tensor) -> Tensor:
    """K + 1 of histories, [B, L, L]; rows and columns of padding are those of the identity."""
    both = mask[:, :, None] & mask[:, None]
    return kernel * both + torch.eye(kernel.shape[1], device=kernel.device)


def cholesky(matrices: Tensor) -> Tensor:
    """Lower Cholesky factors, [B, L, L]; NaN for matrices that are not positive definite, as after divergence."""
    factor, failed = torch.linalg.cholesky_ex(matrices)
    return factor.masked_fill(failed[:, None, None] > 0, torch.nan)


class MarginalLikelihood(torch.autograd.Function):
    """Negative log marginal likelihood of B Gaussian processes with covariance noise * K, and leave-one-out errors.

    -log N(e; 0, noise K) = (e · K^-1 e / noise + log |K| + n log noise) / 2, up to a constant. The explicit gradients
    (Rasmussen and Williams 2006, equations 5.8 and 5.9) are cheaper than autograd's; leave-one-out errors: 5.12.
    """

    @staticmethod
    def forward(ctx, kernel: Tensor, error: Tensor, log_noise: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        """kernel [B, L, L], padded with identity rows; error [B, L], padded with zeros -> a scalar and [B, L]."""
        factor = cholesky(kernel)
        inverse = torch.cholesky_inverse(factor)
        weights = (inverse @ error[..., None]).squeeze(-1)
        n, noise = length.sum(), log_noise.exp()
        fit = (weights * error).sum() / noise
        loss = 0.5 * (fit + n * log_noise) + factor.diagonal(dim1=1, dim2=2).log().sum()
        ctx.save_for_backward(inverse, weights, noise, n - fit)
        loo_error = weights / inverse.diagonal(dim1=1, dim2=2)
        ctx.mark_non_differentiable(loo_error)
        return loss, loo_error

    @staticmethod
    def backward(ctx, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        inverse, weights, noise, excess = ctx.saved_tensors
        by_kernel = 0.5 * gradient * (inverse - weights[:, :, None] * weights[:, None] / noise)
        return by_kernel, gradient * weights / noise, 0.5 * gradient * excess, None
