"""The multimodal NCF model: user, movie, title and genres into biases, a dot product and an MLP.

    prediction(u, i) = mean + b_u + b_i + p_u · z_i + MLP([p_u, q_i, f_i])
    z_i = q_i + W f_i        b_i = c_i + w · f_i        f_i = [title vector, genres]

The product and the MLP side by side are those of He et al. 2017, "Neural Collaborative Filtering"; W f_i and w · f_i
give a factor and a bias to movies that nobody has rated. The configuration switches parts off; the original is
highest * sigmoid(MLP([p_u, q_i, f_i])). Trained to rank, the same number is a score.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Literal

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
)
from Models.sequences import History, PaddedHistory

CHUNK_MOVIES = 4096  # whose MLP is computed at once when all movies are scored
NEW_USER_STEPS = 200  # of Adam, to fit the embedding of a user who was not in training

# Per-user or per-movie terms of the prediction, each [N, ...].
Terms = dict[str, Tensor]


@dataclass(frozen=True)
class NCFConfig:
    """Settings of the NCF model."""

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


class Recommender(nn.Module):
    """The NCF model of the formula above.

    The first layer of the MLP is linear in its three inputs, so a movie's part of it, where most of the work lies, is
    computed once for each movie of a batch and not once for each rating.

    Raises:
        UnsuitableData: more negatives are wanted than a user has unrated movies.
    """

    batching = RowBatches()

    def __init__(self, config: NCFConfig, stats: DataStats, inputs: ModelInputs):
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
