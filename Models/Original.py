"""The NCF that this project started from: one MLP over user and movie embeddings and movie features.

    prediction(u, i) = highest * sigmoid(MLP([p_u, q_i, f_i]))        f_i = [title vector, genres]

The MLP's first layer is linear in its three inputs, so the movie's part of it, which is most of the work, is computed
once per movie of a batch, not once per rating.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, ClassVar

import torch
from annotated_types import Interval
from torch import Tensor, nn
from torch.nn import functional as F

from Models.Dataset import Batch, Model, TrainingOutput
from Models.inputs import HIGHEST, DataStats, Fraction, ModelInputs, PositiveInt
from Models.sequences import History, PaddedHistory

CHUNK_MOVIES = 4096  # per MLP call when all movies are scored


@dataclass(frozen=True)
class OriginalConfig:
    """Settings of the original NCF."""

    embedding_dim: PositiveInt = 32
    """size of a user or movie embedding"""
    hidden_dims: Annotated[tuple[int, ...], Interval(ge=1, lt=2**31)] = (128, 64)
    """units of the MLP's hidden layers"""
    dropout: Fraction = 0.2
    """share of units of the first hidden layer dropped in training"""

    task: ClassVar = "rating"

    def __post_init__(self) -> None:
        if not self.hidden_dims:
            raise ValueError("--hidden-dims: give the units of at least one layer.")


class OriginalRecommender(Model):
    """The NCF of the formula above. It knows users only by their embeddings, so it cannot serve new users."""

    serves_new_users = reads_histories = False
    looked_up = ("user", "movie")  # embeddings used by row lookup only, so --shard can distribute them

    def __init__(self, config: OriginalConfig, stats: DataStats, inputs: ModelInputs):
        super().__init__()
        self.config, self.stats = config, stats
        self.register_buffer("features", inputs.features, persistent=False)
        dim, layers = config.embedding_dim, [*config.hidden_dims, 1]
        self.user = nn.Embedding(stats.n_users, dim)
        self.movie = nn.Embedding(stats.n_movies, dim)
        self.first = nn.Linear(2 * dim + stats.n_features, layers[0])
        self.dropout = Dropout(config.dropout)
        hidden = [part for pair in pairwise(layers) for part in (nn.Linear(*pair), nn.ReLU(inplace=True))]
        self.head = nn.Sequential(*hidden[:-1])  # no ReLU after the last layer

    def tables(self) -> dict[str, list[Tensor]]:
        """The parameters with one row per user, and those with one row per movie."""
        return {"user": [self.user.weight], "movie": [self.movie.weight]}

    def forward(self, batch: Batch) -> TrainingOutput:
        """The loss is the mean squared error of rating / HIGHEST."""
        prediction = self.predict(batch)
        error = (prediction - batch["rating"]) / HIGHEST
        return TrainingOutput(error.square().mean(), len(prediction), prediction)

    def predict(self, batch: Batch, history: History | None = None) -> Tensor:
        """Predicted ratings of the rows, [B]; `history` is not used."""
        movies, inverse = torch.unique(batch["movie"], return_inverse=True)
        # index_select, unlike part[inverse], has a fast and deterministic gradient
        return self.mlp(self.user_part(batch["user"]), self.movie_part(movies).index_select(0, inverse))

    def user_part(self, users: Tensor) -> Tensor:
        """The user embeddings' part of the first layer, with its bias, [N, H]."""
        return F.linear(self.user(users), self.first.weight[:, : self.config.embedding_dim], self.first.bias)

    def movie_part(self, movies: Tensor) -> Tensor:
        """The movie embeddings' and features' part of the first layer, [N, H]."""
        dim, weight = self.config.embedding_dim, self.first.weight
        from_ids = F.linear(self.movie(movies), weight[:, dim : 2 * dim])
        return from_ids + F.linear(self.features[movies], weight[:, 2 * dim :])  # separate: features need no gradient

    def mlp(self, user: Tensor, movie: Tensor) -> Tensor:
        """Predictions, [...], from both parts of the first layer, which broadcast against each other, [..., H]."""
        hidden = self.dropout((user + movie).relu_())
        return HIGHEST * torch.sigmoid(self.head(hidden).squeeze(-1))

    def score(self, history: PaddedHistory) -> Tensor:
        """Predicted ratings of every movie for these users, who must be in the data, [B, n_movies]."""
        movies = self.movie_part(torch.arange(self.stats.n_movies, device=self.features.device))
        # in chunks that stay in the cache: the hidden units of many users and all movies would exhaust the memory
        chunks = movies.split(CHUNK_MOVIES)
        return torch.stack([torch.cat([self.mlp(u, chunk) for chunk in chunks]) for u in self.user_part(history.user)])

    def movie_vectors(self) -> Tensor:
        """q of every movie, [n_movies, D]."""
        return self.movie.weight

    def user_vectors(self, history: PaddedHistory) -> Tensor:
        """p of these users, who must be in the data, [B, D]."""
        return self.user(history.user)


class Dropout(nn.Module):
    """Like nn.Dropout, but one random word decides four units: on a CPU, one draw per unit costs more than a layer.

    p: share of units dropped, rounded to 1/65536
    """

    def __init__(self, p: float):
        super().__init__()
        self.n_dropped = min(round(65_536 * p), 65_535)  # of the 65,536 16-bit values

    def forward(self, x: Tensor) -> Tensor:
        if not (self.training and self.n_dropped):
            return x
        words = torch.empty(x.numel() // 4 + 1, dtype=torch.int64, device=x.device).random_(-(2**63), None)
        is_kept = words.view(torch.int16)[: x.numel()].view(x.shape) >= self.n_dropped - 32_768
        return x * is_kept.to(x.dtype).mul_(65_536 / (65_536 - self.n_dropped))
