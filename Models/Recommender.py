"""The multimodal NCF: a tower for the user and one for the movie, their product, and an MLP over both.

    prediction(u, i, t) = mean + b_u + b_i + w · f_i + c · x + z_u · z_i + MLP([z_u, z_i, x])
    z_u = p_u + n_u^-1/2 sum_j x_j + C x        j: the movies in u's history, i left out
    z_i = q_i + n_i^-1/2 sum_v y_v + W f_i      v: the users who rated i in training
    f_i = [title vector, genres, decade]        x = [demographics of u, clock of u, i and t]

The product and the MLP are those of He et al. 2017, "Neural Collaborative Filtering"; the sums those of SVD++ (Koren
2008, "Factorization Meets the Neighborhood"), on both sides. p and q are Gaussians, as far as the ratings tell (Lim and
Teh 2007, "Variational Bayesian Approach to Movie Rating Prediction"), so that rare users and movies are trusted less.
The expected squared error over them is a closed form:

    E (r - prediction)^2 = (r - mean prediction)^2 + z_u^2 · var q_i + z_i^2 · var p_u + var p_u · var q_i
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Interval
from torch import Tensor, nn
from torch.nn import functional as F

from Models.Dataset import Batch, RowBatches, TrainingOutput
from Models.inputs import (
    HIGHEST,
    DataStats,
    Fraction,
    ModelInputs,
    NonNegFloat,
    NonNegInt,
    PositiveInt,
    UnsuitableData,
    decades,
)
from Models.layers import N_CLOCK, Posterior, SumOverRaters, clock
from Models.sequences import History, PaddedHistory, offsets

Tower = Literal["ids", "history", "audience", "features", "demographics", "clock"]


@dataclass(frozen=True)
class NCFConfig:
    """Settings of the NCF model."""

    embedding_dim: PositiveInt = 32
    """size of a user's or movie's vector"""
    hidden_dim: NonNegInt = 64
    """units of the MLP's hidden layer; 0: no MLP"""
    towers: tuple[Tower, ...] = ("ids", "history", "audience", "features", "demographics", "clock")
    """what the vectors are made of; what the data lacks is left out"""
    history_precision: NonNegFloat = 8.0
    """prior precision of the implicit item factors x"""
    audience_precision: NonNegFloat = 300.0
    """prior precision of the implicit user factors y"""
    feature_precision: NonNegFloat = 500.0
    """prior precision of the weights of movie features"""
    bias_precision: NonNegFloat = 3.0
    """prior precision of the biases"""

    task: ClassVar = "rating"


class Recommender(nn.Module):
    """The NCF of the formula above."""

    batching = RowBatches()
    reads_histories = True

    def __init__(self, config: NCFConfig, stats: DataStats, inputs: ModelInputs):
        super().__init__()
        self.config, self.stats = config, stats
        features = torch.cat([inputs.features, decades(inputs.year)], 1) * ("features" in config.towers)
        user_features = inputs.user_features * ("demographics" in config.towers)
        for name, part in {"features": features, "year": inputs.year, "user_features": user_features}.items():
            self.register_buffer(name, part, persistent=False)
        self.remember(inputs)
        dim, n_context = config.embedding_dim, stats.n_user_features + N_CLOCK
        self.users = Posterior(stats.n_users, dim, 0.1 / dim**0.5)  # p
        self.movies = Posterior(stats.n_movies, dim, 0.1 / dim**0.5)  # q
        self.history = nn.Parameter(torch.zeros(stats.n_movies, dim))  # x, implicit item factors
        self.audience = nn.Parameter(torch.zeros(stats.n_users, dim))  # y, implicit user factors
        self.user_bias = nn.Parameter(torch.zeros(stats.n_users))
        self.movie_bias = nn.Parameter(torch.zeros(stats.n_movies))
        self.feature_weights = nn.Parameter(torch.zeros(features.shape[1], dim + 1))  # W and w
        self.context_weights = nn.Parameter(torch.zeros(n_context, dim + 1))  # C and c
        if config.hidden_dim:
            layers = nn.Linear(2 * dim + n_context, config.hidden_dim), nn.ReLU(), nn.Linear(config.hidden_dim, 1)
            self.mlp = nn.Sequential(*layers)
            nn.init.zeros_(self.mlp[2].weight)
        self.mean = nn.Parameter(torch.tensor(stats.mean_rating))
        self.log_noise = nn.Parameter(torch.tensor(-0.2))  # of the variance of a rating

    def remember(self, inputs: ModelInputs) -> None:
        """Keep who rated what in training, by user and by movie."""
        by_movie = torch.argsort(inputs.movie, stable=True)
        n_of_movie = torch.bincount(inputs.movie, minlength=self.stats.n_movies)
        known = History.of(inputs.user, inputs.movie, inputs.rating, inputs.time, self.stats.n_users)
        parts = {"offsets": known.offsets, "rated": known.movie, "rating": known.rating, "time": known.time}
        parts |= {"raters": inputs.user[by_movie], "offset_of_movie": offsets(n_of_movie), "n_of_movie": n_of_movie}
        for name, part in parts.items():
            self.register_buffer(f"training_{name}", part, persistent=False)

    def training_history(self) -> History:
        return History(self.training_offsets, self.training_rated, self.training_rating, self.training_time)

    def tables(self) -> dict[str, list[Tensor]]:
        """The parameters with a row for each user, and for each movie."""
        users = [*self.users.parameters(), self.audience, self.user_bias]
        return {"user": users, "movie": [*self.movies.parameters(), self.history, self.movie_bias]}

    # --- training --------------------------------------------------------------------------------

    def forward(self, batch: Batch) -> TrainingOutput:
        """The mean over the ratings of the negative log likelihood, and of the priors' part for each.

        -log N(r; prediction, noise), in expectation over p and q, = (E (r - prediction)^2 / noise + log noise) / 2
        """
        user, movie = batch["user"], batch["movie"]
        known, items = self.training_history(), self.item_tower()
        others = self.taste(take(self.sum_of_rated(), user) - take(self.history, movie), known.lengths(user) - 1)
        context = self.context(known, user, user, movie, batch["time"])
        p, q = take(self.users.mean, user) * self.has("ids"), take(items["vectors"], movie)
        bias, movie_bias = take(self.user_bias, user), take(items["bias"], movie)
        prediction, z = self.interaction(p, bias, others, context, q, movie_bias)
        var_p, var_q = (
            take(one.variance(), row) * self.has("ids") for one, row in ((self.users, user), (self.movies, movie))
        )
        expected = (batch["rating"] - prediction).square()
        expected = expected + (z.square() * var_q + q.square() * var_p + var_p * var_q).sum(1)
        likelihood = 0.5 * (expected / self.log_noise.exp() + self.log_noise).mean()
        return TrainingOutput(likelihood + self.divergence() / len(known.movie), len(prediction), prediction)

    def divergence(self) -> Tensor:
        """What the loss adds once for all ratings: the priors of what is learned."""
        c = self.config
        precisions = (
            (c.history_precision, self.history),
            (c.audience_precision, self.audience),
            (c.feature_precision, self.feature_weights),
            (c.bias_precision, self.user_bias),
            (c.bias_precision, self.movie_bias),
        )
        points = sum(0.5 * precision * part.square().sum() for precision, part in precisions)
        return self.users.divergence() + self.movies.divergence() + points

    # --- the formula -----------------------------------------------------------------------------

    def has(self, tower: Tower) -> bool:
        return tower in self.config.towers

    def item_tower(self) -> dict[str, Tensor]:
        """z and bias of every movie, [n_movies, D] and [n_movies]."""
        from_features = self.features @ self.feature_weights  # [n_movies, D + 1]
        return {
            "vectors": self.movies.mean * self.has("ids") + self.audience_part() + from_features[:, :-1],
            "bias": self.movie_bias * self.has("ids") + from_features[:, -1],
        }

    def audience_part(self) -> Tensor:
        """n_i^-1/2 sum_v y_v of every movie, [n_movies, D]."""
        edges = (self.training_raters, self.training_offset_of_movie, self.training_rated, self.training_offsets[:-1])
        total = SumOverRaters.apply(self.audience, *edges)
        return total * self.has("audience") / self.training_n_of_movie.clamp(min=1).sqrt()[:, None]

    def sum_of_rated(self) -> Tensor:
        """sum_j x_j over all training ratings of every user, [n_users, D]."""
        edges = (self.training_rated, self.training_offsets[:-1], self.training_raters, self.training_offset_of_movie)
        return SumOverRaters.apply(self.history, *edges)

    def taste(self, total: Tensor, n: Tensor) -> Tensor:
        """n^-1/2 sum_j x_j from the sum over n movies, [B, D] and [B]."""
        return total * self.has("history") / n.clamp(min=1).sqrt()[:, None]

    def context(self, history: History, place: Tensor, user: Tensor, movie: Tensor, time: Tensor) -> Tensor:
        """x of ratings, [B, C]: demographics, zeros for new users, and the clock by the history at `place`."""
        demographics = self.user_features[user.clamp(min=0)] * (user >= 0)[:, None]
        return torch.cat([demographics, clock(history, place, time, self.year[movie]) * self.has_clock()], 1)

    def has_clock(self) -> bool:
        return self.has("clock") and self.stats.newest > 0

    def interaction(
        self, p: Tensor, bias: Tensor, taste: Tensor, context: Tensor, q: Tensor, movie_bias: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Predictions, [B], and z of their users, [B, D], from the parts of users and movies."""
        from_context = context @ self.context_weights  # [B, D + 1]
        z = p + taste + from_context[:, :-1]
        prediction = self.mean + bias * self.has("ids") + movie_bias + from_context[:, -1] + (z * q).sum(1)
        if self.config.hidden_dim:
            prediction = prediction + self.mlp(torch.cat([z, q.expand_as(z), context], 1)).squeeze(1)
        return prediction, z

    # --- use -------------------------------------------------------------------------------------

    def predict(self, batch: Batch, history: History) -> Tensor:
        """Predicted ratings of the rows, not clipped, [B], by users of the data with these histories."""
        user, movie = batch["user"], batch["movie"]
        items = self.item_tower()
        taste = self.taste(sum_of(self.history, history), history.offsets.diff())[user]
        context = self.context(history, user, user, movie, batch["time"])
        parts = self.users.mean[user] * self.has("ids"), self.user_bias[user], taste, context
        return self.interaction(*parts, items["vectors"][movie], items["bias"][movie])[0]

    def score(self, history: PaddedHistory) -> Tensor:
        """Predicted ratings, not clipped, of every movie right after each user's last rating: [B, n_movies]."""
        items, known = self.item_tower(), history.flat()
        users = self.user_tower(history.user, known, items)
        return torch.stack([self.score_for(k, history.user, known, users, items) for k in range(len(history.user))])

    def score_for(
        self, k: int, users: Tensor, known: History, parts: dict[str, Tensor], items: dict[str, Tensor]
    ) -> Tensor:
        """The same for user number k, [n_movies]."""
        movie = torch.arange(self.stats.n_movies, device=users.device)
        own = known.time[known.offsets[k] : known.offsets[k + 1]]
        time = torch.full_like(movie, int(own[-1]) if len(own) else self.stats.newest)
        context = self.context(known, torch.full_like(movie, k), users[k].expand_as(movie), movie, time)
        row = slice(k, k + 1)
        return self.interaction(
            parts["p"][row], parts["bias"][row], parts["taste"][row], context, items["vectors"], items["bias"]
        )[0]

    def user_tower(self, user: Tensor, known: History, items: dict[str, Tensor]) -> dict[str, Tensor]:
        """p, bias and taste of users with these histories, NEW_USER for new ones: [B, D], [B] and [B, D]."""
        index = user.clamp(min=0)
        p, bias = self.users.mean[index] * self.has("ids"), self.user_bias[index]
        taste = self.taste(sum_of(self.history, known), known.offsets.diff())
        for k in (user < 0).nonzero().squeeze(1).tolist():
            p[k], bias[k] = self.fit_new_user(k, known, items)
        return {"p": p, "bias": bias, "taste": taste}

    def fit_new_user(self, k: int, known: History, items: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """p, [D], and bias of a new user: what the training would learn from their ratings, in closed form.

        The posterior mean of a linear regression of what is left of the ratings on [z_i, 1] (Bishop 2006, "Pattern
        Recognition and Machine Learning", equation 3.53), with the priors of the training, and with z_i uncertain.
        """
        rows = slice(int(known.offsets[k]), int(known.offsets[k + 1]))
        movie, n = known.movie[rows], rows.stop - rows.start
        place, nobody = torch.full_like(movie, k), torch.full_like(movie, -1)
        others = self.taste(self.history[movie].sum(0) - self.history[movie], torch.full_like(movie, n - 1))
        context = self.context(known, place, nobody, movie, known.time[rows])
        q = items["vectors"][movie]
        nothing = torch.zeros_like(others), torch.zeros(n, device=q.device)
        without, z = self.interaction(*nothing, others, context, q, items["bias"][movie])
        design = torch.cat([q, torch.ones_like(q[:, :1])], 1)  # [n, D + 1]
        var_q = F.pad(self.movies.variance()[movie] * self.has("ids"), (0, 1))
        products = design.T @ design + var_q.sum(0).diag()  # E sum_j [z_j, 1] [z_j, 1]^T
        target = design.T @ (known.rating[rows] - without) - (var_q * F.pad(z, (0, 1))).sum(0)
        bias_precision = torch.full((1,), self.config.bias_precision, device=q.device)
        prior = torch.cat([1 / self.users.prior_variance(), bias_precision])
        noise = self.log_noise.exp()
        found = torch.linalg.solve(products / noise + prior.diag(), target / noise)
        return found[:-1] * self.has("ids"), found[-1]

    def movie_vectors(self) -> Tensor:
        """z of every movie, [n_movies, D]."""
        return self.item_tower()["vectors"]

    def user_vectors(self, history: PaddedHistory) -> Tensor:
        """z of users with these histories but for what the context adds, [B, D]."""
        parts = self.user_tower(history.user, history.flat(), self.item_tower())
        return parts["p"] + parts["taste"]


def take(table: Tensor, index: Tensor) -> Tensor:
    """table[index], with a gradient that is the same each time, however many threads add it up."""
    return table.index_select(0, index)


def sum_of(vectors: Tensor, history: History) -> Tensor:
    """Of each user, the sum of the vectors of the rated movies, [n_users, D]."""
    if not len(history.movie):
        return vectors.new_zeros(len(history.offsets) - 1, vectors.shape[1])
    return F.embedding_bag(history.movie, vectors, history.offsets, mode="sum", include_last_offset=True)


# --- the original, and the NCF trained to rank ---------------------------------------------------

CHUNK_MOVIES = 4096  # whose MLP is computed at once when all movies are scored
NEW_USER_STEPS = 200  # of Adam, to fit the embedding of a user who was not in training

# Per-user or per-movie terms of the prediction, each [N, ...].
Terms = dict[str, Tensor]


@dataclass(frozen=True)
class OriginalConfig:
    """Settings of the NCF that knows users by embeddings alone."""

    embedding_dim: PositiveInt = 64
    """size of a user or movie embedding"""
    hidden_dims: Annotated[tuple[int, ...], Interval(ge=1, lt=2**31)] = (128, 64)
    """units of the MLP's hidden layers"""
    dropout: Fraction = 0.5
    """share of units of the first hidden layer dropped in training"""
    biases: bool = True
    """add the mean rating, a user bias and a movie bias"""
    gmf: bool = True
    """add the dot product of user and movie factors"""
    ids: bool = True
    """use movie embeddings and biases, not features alone"""
    sigmoid: bool = False
    """squeeze the output into 0 to the highest rating"""
    l2: NonNegFloat = 0.06
    """penalty on the factors, once per rating, in squared rating units"""
    l2_bias: NonNegFloat = 0.005
    """the same for the biases"""
    num_negatives: NonNegInt = 0
    """0: predict ratings; otherwise rank: unrated movies drawn beside each rated one"""

    def __post_init__(self) -> None:
        if not self.hidden_dims:
            raise ValueError("--hidden-dims: give the units of at least one layer.")

    @property
    def task(self) -> Literal["rating", "ranking"]:
        return "ranking" if self.num_negatives else "rating"


class OriginalRecommender(nn.Module):
    """The NCF that knows users and movies by embeddings, and movies by features as well.

    prediction(u, i) = mean + b_u + b_i + p_u · z_i + MLP([p_u, q_i, f_i])    z_i = q_i + W f_i    b_i = c_i + w · f_i

    The configuration switches parts off; the original is highest * sigmoid(MLP([p_u, q_i, f_i])). Trained to rank, the
    same number is a score.

    The first layer of the MLP is linear in its three inputs, so a movie's part of it, where most of the work lies, is
    computed once for each movie of a batch and not once for each rating.

    Raises:
        UnsuitableData: more negatives are wanted than a user has unrated movies.
    """

    batching = RowBatches()

    def __init__(self, config: OriginalConfig, stats: DataStats, inputs: ModelInputs):
        super().__init__()
        self.config, self.stats = config, stats
        self.register_buffer("features", inputs.features, persistent=False)
        if config.task == "ranking":
            rated = (inputs.user * stats.n_movies + inputs.movie).sort().values
            self.register_buffer("rated", rated, persistent=False)
            unrated = stats.n_movies - int(torch.bincount(inputs.user).max())
            if unrated < config.num_negatives:
                raise UnsuitableData(f"A user has only {unrated} unrated movies: lower --num-negatives.")
        dim, layers = config.embedding_dim, [*config.hidden_dims, 1]
        self.user = nn.Embedding(stats.n_users, dim)
        self.movie = nn.Embedding(stats.n_movies, dim)
        self.first = nn.Linear(2 * dim + stats.n_features, layers[0])
        self.dropout = nn.Dropout(config.dropout)
        hidden = [part for pair in pairwise(layers) for part in (nn.Linear(*pair), nn.ReLU(inplace=True))]
        self.head = nn.Sequential(*hidden[:-1])  # no ReLU after the last layer
        if config.gmf:
            self.feature_factors = nn.Linear(stats.n_features, dim, bias=False)
            nn.init.zeros_(self.feature_factors.weight)
            for embedding in (self.user, self.movie):  # small: predictions start at the biases
                nn.init.normal_(embedding.weight, std=0.01)
        if config.biases:
            self.user_bias = nn.Embedding(stats.n_users, 1)
            self.movie_bias = nn.Embedding(stats.n_movies, 1)
            self.feature_bias = nn.Linear(stats.n_features, 1, bias=False)
            for part in (self.user_bias, self.movie_bias, self.feature_bias):
                nn.init.zeros_(part.weight)
        if not config.ids:
            for part in (self.movie, *([self.movie_bias] if config.biases else [])):
                nn.init.zeros_(part.weight).requires_grad_(False)

    def tables(self) -> dict[str, list[Tensor]]:
        """The parameters with a row for each user, and for each movie."""
        users, movies = [self.user.weight], [self.movie.weight]
        if self.config.biases:
            users, movies = [*users, self.user_bias.weight], [*movies, self.movie_bias.weight]
        return {"user": users, "movie": movies}

    # --- training --------------------------------------------------------------------------------

    def forward(self, batch: Batch) -> TrainingOutput:
        """The training loss of a batch of ratings.

        Of ratings, it is the mean squared error on rating / highest, as in the original, and the penalty in the
        same unit; of rankings, see `ranking_loss`.
        """
        if self.config.task == "ranking":
            return TrainingOutput(self.ranking_loss(batch["user"], batch["movie"]), len(batch["user"]))
        user, movie = self.terms(batch)
        prediction = self.interaction(user, movie)
        error = (prediction - batch["rating"]) / HIGHEST
        penalty = (user["penalty"] + movie["penalty"]).mean() / HIGHEST**2
        return TrainingOutput(error.square().mean() + penalty, len(prediction), prediction)

    def ranking_loss(self, users: Tensor, rated: Tensor) -> Tensor:
        """Sampled softmax: mean cross-entropy of each user's rated movie among negatives, and the penalty on both."""
        negatives = draw_negatives(users, self.rated, self.stats.n_movies, self.config.num_negatives)
        movies, inverse = torch.unique(torch.cat([rated[:, None], negatives], 1), return_inverse=True)  # [B, 1 + n]
        user = {name: part[:, None] for name, part in self.user_tower(users).items()}
        parts = self.item_tower(movies)
        movie = {name: p.index_select(0, inverse.flatten()).unflatten(0, inverse.shape) for name, p in parts.items()}
        scores = self.interaction(user, movie)
        return -F.log_softmax(scores, 1)[:, 0].mean() + (user["penalty"] + movie["penalty"]).mean()

    # --- the formula -----------------------------------------------------------------------------

    def terms(self, batch: Batch) -> tuple[Terms, Terms]:
        """The terms of each row's user and movie, each [B, ...]."""
        movies, inverse = torch.unique(batch["movie"], return_inverse=True)
        # index_select, unlike part[inverse], has a gradient that is the same each time, and fast
        movie = {name: part.index_select(0, inverse) for name, part in self.item_tower(movies).items()}
        return self.user_tower(batch["user"]), movie

    def user_tower(self, users: Tensor) -> Terms:
        """The terms of the users with these indices, [N]."""
        bias = self.user_bias(users).squeeze(1) if self.config.biases else None
        return self.user_terms(self.user(users), bias)

    def user_terms(self, embedding: Tensor, bias: Tensor | None) -> Terms:
        """The terms of users with these embeddings, [N, D], and biases, [N]."""
        weight = self.first.weight[:, : self.config.embedding_dim]
        terms = {"hidden": F.linear(embedding, weight, self.first.bias)}  # [N, H]
        terms["penalty"] = self.config.l2 * embedding.square().sum(1)  # [N]
        if self.config.gmf:
            terms["factors"] = embedding
        if self.config.biases:
            terms["bias"] = bias
            terms["penalty"] = terms["penalty"] + self.config.l2_bias * bias.square()
        return terms

    def item_tower(self, movies: Tensor) -> Terms:
        """The terms of the movies with these indices, [N]."""
        embedding, features = self.movie(movies), self.features[movies]  # [N, D], [N, F]
        weight = self.first.weight[:, self.config.embedding_dim :]
        terms = {"hidden": F.linear(torch.cat([embedding, features], 1), weight)}  # [N, H]
        terms["penalty"] = self.config.l2 * embedding.square().sum(1)  # [N]
        if self.config.gmf:
            from_features = self.feature_factors(features)
            terms["factors"] = embedding + from_features
            terms["penalty"] = terms["penalty"] + self.config.l2 * from_features.square().sum(1)
        if self.config.biases:
            own, from_features = self.movie_bias(movies).squeeze(1), self.feature_bias(features).squeeze(1)
            terms["bias"] = own + from_features
            terms["penalty"] = terms["penalty"] + self.config.l2_bias * (own.square() + from_features.square())
        return terms

    def interaction(self, user: Terms, movie: Terms) -> Tensor:
        """Predictions from the terms of users and movies that broadcast against each other."""
        prediction = self.head(self.dropout((user["hidden"] + movie["hidden"]).relu_())).squeeze(-1)
        if self.config.gmf:
            prediction = prediction + (user["factors"] * movie["factors"]).sum(-1)
        if self.config.biases:
            prediction = prediction + self.stats.mean_rating + user["bias"] + movie["bias"]
        return HIGHEST * torch.sigmoid(prediction) if self.config.sigmoid else prediction

    # --- use -------------------------------------------------------------------------------------

    def predict(self, batch: Batch, history: History | None = None) -> Tensor:
        """Predicted ratings of the rows, not clipped to the scale, [B]; the history is in the users' embeddings."""
        return self.interaction(*self.terms(batch))

    def score(self, history: PaddedHistory) -> Tensor:
        """Predictions or scores of every movie for these users, [B, n_movies].

        Users of the data have their embedding, which training learned from the training ratings; if any user is new,
        embeddings are fitted to all of these histories.
        """
        if (history.user >= 0).all():
            return self.score_all(self.user_tower(history.user))
        return self.score_all(self.fit_new_user(history))

    def fit_new_user(self, history: PaddedHistory) -> Terms:
        """The terms of new users with these ratings, whose embeddings alone are learned here."""
        with torch.inference_mode(False), torch.enable_grad():
            n, device = len(history.user), self.features.device
            own = [torch.zeros(n, self.config.embedding_dim, device=device, requires_grad=True)]
            own += [torch.zeros(n, device=device, requires_grad=True)] * self.config.biases
            movie, rating, mask = (part.clone() for part in (history.movie, history.rating, history.mask))
            optimizer = torch.optim.Adam(own, lr=0.05)
            for _ in range(NEW_USER_STEPS):
                user = self.user_terms(own[0], own[1] if self.config.biases else None)
                scores = self.score_all(user)
                if self.config.task == "rating":
                    loss = ((scores.gather(1, movie) - rating).square() * mask).sum()
                else:
                    loss = -(scores.log_softmax(1).gather(1, movie) * mask).sum()
                loss = loss + (user["penalty"] * mask.sum(1)).sum()
                for part, gradient in zip(own, torch.autograd.grad(loss, own, allow_unused=True), strict=True):
                    part.grad = gradient
                optimizer.step()
        return self.user_terms(own[0].detach(), own[1].detach() if self.config.biases else None)

    def score_all(self, user: Terms) -> Tensor:
        """Predictions or scores of every movie for users with these terms, [N, n_movies]."""
        movie = self.item_tower(torch.arange(self.stats.n_movies, device=self.features.device))
        # in chunks: the MLP's units of many users and all movies would fill the memory, these stay in the cache
        rows = ({name: part[i] for name, part in user.items()} for i in range(len(user["hidden"])))
        chunks = [
            {name: part[i : i + CHUNK_MOVIES] for name, part in movie.items()}
            for i in range(0, self.stats.n_movies, CHUNK_MOVIES)
        ]
        return torch.stack([torch.cat([self.interaction(row, chunk) for chunk in chunks]) for row in rows])

    def movie_vectors(self) -> Tensor:
        """z of every movie, [n_movies, D]; without the product, the embeddings."""
        terms = self.item_tower(torch.arange(self.stats.n_movies, device=self.features.device))
        return terms["factors"] if self.config.gmf else self.movie.weight

    def user_vectors(self, history: PaddedHistory) -> Tensor:
        """p of these users, who must be users of the data, [B, D]; the history is in it."""
        return self.user(history.user)


def draw_negatives(users: Tensor, rated: Tensor, n_movies: int, n: int) -> Tensor:
    """For each user `n` different movies, uniformly from those that the user has not rated: [B, n].

    Args:
        users: indices, [B]; each with at least n unrated movies
        rated: user * n_movies + movie of every training rating, sorted
    """
    drawn = torch.randint(n_movies, (len(users), n), device=users.device)
    while True:
        pair = users[:, None] * n_movies + drawn
        wrong = rated[torch.searchsorted(rated, pair).clamp(max=len(rated) - 1)] == pair
        ordered, order = drawn.sort(1)
        wrong |= torch.zeros_like(wrong).scatter(1, order[:, 1:], ordered.diff(dim=1) == 0)  # all but one of equals
        if not wrong.any():
            return drawn
        drawn = torch.where(wrong, torch.randint_like(drawn, n_movies), drawn)
