"""The multimodal NCF: a user tower, a movie tower, their product and an MLP, trained on ratings.

    prediction(u, i, t) = mean + b_u + b_ut + b_i + w · f_i + c · x + z_u · z_i + MLP([z_u, z_i, x])
    z_u = p_u + (n_u + 20)^-1/2 sum_j x_j + C x     j: the movies in u's history, except i
    z_i = q_i + n_i^-1/2 sum_v y_v + W f_i          v: the users who rated i in training, except u
    f_i = [title, genres, decade, ...], see features.py        x = [demographics of u, clock of u, i and t]

The product and the MLP are those of He et al. 2017, "Neural Collaborative Filtering"; the sums those of SVD++ (Koren
2008, "Factorization Meets the Neighborhood"), on both sides. p, q, b_u and b_ut (the bias of u's sessions at t) have
Gaussian posteriors (Lim and Teh 2007, "Variational Bayesian Approach to Movie Rating Prediction"), so that users and
movies with few ratings are trusted less. The expected squared error over them has a closed form:

    E (r - prediction)^2 = (r - mean prediction)^2 + z_u^2 · var q_i + z_i^2 · var p_u + var p_u · var q_i
                           + var b_u + var b_ut

RankingRecommender.py has the NCF that is trained to rank.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from Models.Dataset import Batch, TrainingOutput
from Models.inputs import (
    DataStats,
    Fraction,
    ModelInputs,
    NonNegFloat,
    NonNegInt,
    PositiveInt,
)
from Models.layers import (
    N_CLOCK,
    ItemTower,
    Posterior,
    SessionBiases,
    SumOverRaters,
    clock_numbers,
    place_in_history,
    take,
)
from Models.sequences import History, PaddedHistory, offsets

Tower = Literal["ids", "history", "audience", "features", "demographics", "clock", "sessions"]
CHUNK_PAIRS = 16_384  # pairs of user and movie per MLP call: its hidden units stay in the cache
SESSION_BREAKS = (0, 120, 3600)  # seconds: sessions of the same second, of a few minutes, of an evening


@dataclass(frozen=True)
class NCFConfig:
    """Settings of the NCF model."""

    embedding_dim: PositiveInt = 32
    """size of a user's or movie's vector"""
    hidden_dim: NonNegInt = 64
    """units of the MLP's hidden layer; 0: no MLP"""
    towers: tuple[Tower, ...] = ("ids", "history", "audience", "features", "demographics", "clock", "sessions")
    """parts of the model to use; those that the data lacks are left out"""
    history_damping: NonNegFloat = 20.0
    """number of movies added to the length of a history, so that short ones count less"""
    history_dropout: Fraction = 0.1
    """share of users whose history is dropped in a training step, to serve those who have none"""
    history_precision: NonNegFloat = 8.0
    """prior precision of the implicit item factors x"""
    audience_precision: NonNegFloat = 100.0
    """prior precision of the implicit user factors y"""
    feature_precision: NonNegFloat = 500.0
    """prior precision of the weights of movie features"""
    bias_precision: NonNegFloat = 3.0
    """prior precision of the movies' biases"""

    task: ClassVar = "rating"


class Recommender(ItemTower):
    """The NCF of the formula above."""

    def __init__(self, config: NCFConfig, stats: DataStats, inputs: ModelInputs):
        super().__init__()
        self.config, self.stats = config, stats
        features = inputs.features * ("features" in config.towers)
        user_features = inputs.user_features * ("demographics" in config.towers)
        for name, part in {"features": features, "year": inputs.year, "user_features": user_features}.items():
            self.register_buffer(name, part, persistent=False)
        self.remember(inputs)
        dim, n_context = config.embedding_dim, stats.n_user_features + N_CLOCK
        self.users = Posterior(stats.n_users, dim + 1, 0.1 / dim**0.5)  # p and, last, the bias
        self.movies = Posterior(stats.n_movies, dim, 0.1 / dim**0.5)  # q
        self.history = nn.Parameter(torch.zeros(stats.n_movies, dim))  # x, implicit item factors
        self.audience = nn.Parameter(torch.zeros(stats.n_users, dim))  # y, implicit user factors
        self.movie_bias = nn.Parameter(torch.zeros(stats.n_movies))
        self.feature_weights = nn.Parameter(torch.zeros(features.shape[1], dim + 1))  # W and w
        self.context_weights = nn.Parameter(torch.zeros(n_context, dim + 1))  # C and c
        if config.hidden_dim:
            layers = nn.Linear(2 * dim + n_context, config.hidden_dim), nn.ReLU(), nn.Linear(config.hidden_dim, 1)
            self.mlp = nn.Sequential(*layers)
            nn.init.zeros_(self.mlp[2].weight)
        timed = self.has("sessions") and stats.newest > 0
        self.sessions = SessionBiases(self.training_history(), SESSION_BREAKS if timed else ())  # b_ut
        self.mean = nn.Parameter(torch.tensor(stats.mean_rating))
        self.log_noise = nn.Parameter(torch.tensor(-0.2))  # log of a rating's noise variance

    def remember(self, inputs: ModelInputs) -> None:
        """Register the training ratings, by user and by movie, as buffers."""
        known = inputs.training()
        raters = known.users()[torch.argsort(known.movie, stable=True)]
        parts = {"offsets": known.offsets, "rated": known.movie, "rating": known.rating, "time": known.time}
        parts |= {"raters": raters, "offset_of_movie": offsets(inputs.count), "n_of_movie": inputs.count}
        for name, part in parts.items():
            self.register_buffer(f"training_{name}", part, persistent=False)

    def training_history(self) -> History:
        return History(self.training_offsets, self.training_rated, self.training_rating, self.training_time)

    def tables(self) -> dict[str, list[Tensor]]:
        """The parameters with one row per user, per movie and per session."""
        users = [*self.users.parameters(), self.audience]
        movies = [*self.movies.parameters(), self.history, self.movie_bias]
        return {"user": users, "movie": movies, "session": list(self.sessions.parameters())}

    # --- training --------------------------------------------------------------------------------

    def forward(self, batch: Batch) -> TrainingOutput:
        """The loss: the mean negative log likelihood of a rating, plus each rating's share of the priors.

        -log N(r; prediction, noise) is, in expectation, (E (r - prediction)^2 / noise + log noise) / 2
        """
        user, movie, has_ids = batch["user"], batch["movie"], self.has("ids")
        known, (vectors, movie_bias) = self.training_history(), self.item_tower_alone()
        # the sums over the other movies that the user rated, and over the other users who rated the movie
        taste = self.taste(take(self.sum_of_rated(), user) - take(self.history, movie), known.lengths(user) - 1)
        has_history = torch.rand(self.stats.n_users, device=user.device) >= self.config.history_dropout
        taste = taste * has_history[user][:, None]
        raters = take(self.sum_of_raters(), movie) - take(self.audience, user)
        q = take(vectors, movie) + self.audience_part(raters, self.training_n_of_movie[movie] - 1)
        context = self.context(known, user, user, movie, batch["time"])
        session, var_session = self.sessions(known, user, batch["time"])
        own, var_own = take(self.users.mean, user) * has_ids, take(self.users.variance(), user) * has_ids
        bias, var_bias = own[:, -1] + session, var_own[:, -1] + var_session
        prediction, z = self.interaction(own[:, :-1], bias, taste, context, q, take(movie_bias, movie))
        var_p, var_q = var_own[:, :-1], take(self.movies.variance(), movie) * has_ids
        expected = (batch["rating"] - prediction).square() + var_bias
        expected = expected + (z.square() * var_q + q.square() * var_p + var_p * var_q).sum(1)
        likelihood = 0.5 * (expected / self.log_noise.exp() + self.log_noise).mean()
        return TrainingOutput(likelihood + self.divergence() / len(known.movie), len(prediction), prediction)

    def divergence(self) -> Tensor:
        """The term that the loss counts once for all ratings: the priors of the learned parameters."""
        c = self.config
        precisions = (
            (c.history_precision, self.history),
            (c.audience_precision, self.audience),
            (c.feature_precision, self.feature_weights),
            (c.bias_precision, self.movie_bias),
        )
        points = sum(0.5 * precision * part.square().sum() for precision, part in precisions)
        return self.users.divergence() + self.movies.divergence() + self.sessions.divergence() + points

    # --- the formula -----------------------------------------------------------------------------

    def has(self, tower: Tower) -> bool:
        return tower in self.config.towers

    def item_tower(self) -> tuple[Tensor, Tensor]:
        """z and bias of every movie, [n_movies, D] and [n_movies]."""
        vectors, bias = self.item_tower_alone()
        return vectors + self.audience_part(self.sum_of_raters(), self.training_n_of_movie), bias

    def item_tower_alone(self) -> tuple[Tensor, Tensor]:
        """`item_tower` without the audience."""
        from_features = self.features @ self.feature_weights  # [n_movies, D + 1]
        bias = self.movie_bias * self.has("ids") + from_features[:, -1]
        return self.movies.mean * self.has("ids") + from_features[:, :-1], bias

    def sum_of_raters(self) -> Tensor:
        """sum_v y_v over all who rated each movie in training, [n_movies, D]."""
        edges = (self.training_raters, self.training_offset_of_movie, self.training_rated, self.training_offsets[:-1])
        return SumOverRaters.apply(self.audience, *edges)

    def audience_part(self, total: Tensor, n: Tensor) -> Tensor:
        """n^-1/2 sum_v y_v, [B, D], from the sum, [B, D], over n users, [B]."""
        return total * self.has("audience") / n.clamp(min=1).sqrt()[:, None]

    def sum_of_rated(self) -> Tensor:
        """sum_j x_j over all training ratings of every user, [n_users, D]."""
        edges = (self.training_rated, self.training_offsets[:-1], self.training_raters, self.training_offset_of_movie)
        return SumOverRaters.apply(self.history, *edges)

    def taste(self, total: Tensor, n: Tensor) -> Tensor:
        """(n + damping)^-1/2 sum_j x_j, [B, D], from the sum, [B, D], over n movies, [B]."""
        return total * self.has("history") / (n + self.config.history_damping).clamp(min=1).sqrt()[:, None]

    def context(self, history: History, place: Tensor, user: Tensor, movie: Tensor, time: Tensor) -> Tensor:
        """x of ratings, [B, C]; `place` is the user's place in `history`."""
        return self.context_at(user, movie, time, *place_in_history(history, place, time))

    def context_at(self, user: Tensor, movie: Tensor, time: Tensor, first: Tensor, position: Tensor) -> Tensor:
        """x, [..., C]: demographics (zeros for new users) and clock; the arguments broadcast against each other."""
        demographics = self.user_features[user.clamp(min=0)] * (user >= 0)[..., None]
        numbers = clock_numbers(time, first, position, self.year[movie]) * self.has_clock()
        return torch.cat([demographics.expand(*numbers.shape[:-1], -1), numbers], -1)

    def has_clock(self) -> bool:
        return self.has("clock") and self.stats.newest > 0

    def interaction(
        self, p: Tensor, bias: Tensor, taste: Tensor, context: Tensor, q: Tensor, movie_bias: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Predictions, [...], and z of their users, [..., D], from the parts of users and movies, which broadcast."""
        from_context = context @ self.context_weights  # [..., D + 1]
        z = p + taste + from_context[..., :-1]
        prediction = self.mean + bias + movie_bias + from_context[..., -1] + (z * q).sum(-1)
        if self.config.hidden_dim:
            prediction = prediction + self.mlp(torch.cat([z, q.expand_as(z), context], -1)).squeeze(-1)
        return prediction, z

    # --- use -------------------------------------------------------------------------------------

    def predict(self, batch: Batch, history: History) -> Tensor:
        """Predicted ratings of the rows, not clipped, [B], for users of the data with these histories."""
        user, movie, time = batch["user"], batch["movie"], batch["time"]
        vectors, movie_bias = self.items()
        first, some = int(user.min()), history.between(int(user.min()), int(user.max()) + 1)
        taste = self.taste(sum_of(self.history, some), some.offsets.diff())[user - first]
        context = self.context(history, user, user, movie, time)
        own = self.users.mean[user] * self.has("ids")
        bias = own[:, -1] + self.sessions(self.training_history(), user, time)[0]
        return self.interaction(own[:, :-1], bias, taste, context, vectors[movie], movie_bias[movie])[0]

    def rough_score(self, history: PaddedHistory) -> Tensor:
        """Fast scores, nearly in the order of `score`: movie bias and product, no context and MLP, [B, n_movies]."""
        items = self.items()
        parts = self.user_tower(history.user, history.flat(), items)
        return torch.addmm(items[1], parts["p"] + parts["taste"], items[0].T)

    def score(self, history: PaddedHistory, movies: Tensor | None = None) -> Tensor:
        """Predicted ratings, not clipped, right after a user's last rating: of every movie or of `movies`, [B, K]."""
        items, known = self.items(), history.flat()
        if movies is None:
            movies = torch.arange(self.stats.n_movies, device=items[0].device).expand(len(history.user), -1)
        now = history.last_times(without=self.stats.newest)
        parts = self.user_tower(history.user, known, items)
        parts["bias"] = parts["bias"] + self.sessions(self.training_history(), history.user, now)[0]
        place = torch.arange(len(now), device=now.device)
        of_users = [history.user, now, *place_in_history(known, place, now), *map(parts.get, ("p", "bias", "taste"))]
        scores = []  # of a few users at a time: the hidden units of all would exhaust the memory
        for k in place.split(max(1, CHUNK_PAIRS // movies.shape[1])):
            user, time, first, position, p, bias, taste = (part[k, None] for part in of_users)
            context = self.context_at(user, movies[k], time, first, position)
            scores.append(self.interaction(p, bias, taste, context, *(part[movies[k]] for part in items))[0])
        return torch.cat(scores)

    def user_tower(self, user: Tensor, known: History, items: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """p, bias and taste of users with these histories, NEW_USER for new ones: [B, D], [B] and [B, D]."""
        own = self.users.mean[user.clamp(min=0)] * self.has("ids")
        for k in (user < 0).nonzero().squeeze(1).tolist():
            own[k] = self.fit_new_user(k, known, items) * self.has("ids")
        taste = self.taste(sum_of(self.history, known), known.offsets.diff())
        return {"p": own[:, :-1], "bias": own[:, -1], "taste": taste}

    def fit_new_user(self, k: int, known: History, items: tuple[Tensor, Tensor]) -> Tensor:
        """p and bias of a new user: what training would learn from their ratings, in closed form, [D + 1].

        The posterior mean of a linear regression of the ratings' residuals on [z_i, 1] (Bishop 2006, "Pattern
        Recognition and Machine Learning", equation 3.53), with the priors of training and uncertain z_i. All ratings
        count as one session, whose biases are then part of the user's. (Without ids, `user_tower` drops the result.)
        """
        rows = slice(int(known.offsets[k]), int(known.offsets[k + 1]))
        movie, n = known.movie[rows], rows.stop - rows.start
        place, nobody = torch.full_like(movie, k), torch.full_like(movie, -1)
        others = self.taste(self.history[movie].sum(0) - self.history[movie], torch.full_like(movie, n - 1))
        context = self.context(known, place, nobody, movie, known.time[rows])
        q, movie_bias = items[0][movie], items[1][movie]
        nothing = torch.zeros_like(others), torch.zeros(n, device=q.device)
        without, z = self.interaction(*nothing, others, context, q, movie_bias)
        design = torch.cat([q, torch.ones_like(q[:, :1])], 1)  # [n, D + 1]
        var_q = F.pad(self.movies.variance()[movie] * self.has("ids"), (0, 1))
        products = design.T @ design + var_q.sum(0).diag()  # E sum_j [z_j, 1] [z_j, 1]^T
        target = design.T @ (known.rating[rows] - without) - (var_q * F.pad(z, (0, 1))).sum(0)
        prior = self.users.prior_variance().clone()
        prior[-1:] += sum(bias.prior_variance() for bias in self.sessions.biases)
        noise = self.log_noise.exp()
        return torch.linalg.solve(products / noise + (1 / prior).diag(), target / noise)

    def movie_vectors(self) -> Tensor:
        """z of every movie, [n_movies, D]."""
        return self.items()[0]

    def user_vectors(self, history: PaddedHistory) -> Tensor:
        """z of users with these histories, without the context's part, [B, D]."""
        parts = self.user_tower(history.user, history.flat(), self.items())
        return parts["p"] + parts["taste"]


def sum_of(vectors: Tensor, history: History) -> Tensor:
    """For each user, the sum of the vectors of the rated movies, [n_users, D]."""
    if not len(history.movie):
        return vectors.new_zeros(len(history.offsets) - 1, vectors.shape[1])
    return F.embedding_bag(history.movie, vectors, history.offsets, mode="sum", include_last_offset=True)
