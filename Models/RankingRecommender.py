"""The multimodal NCF trained to rank: cosine of a user tower, which contains the MLP, and a movie tower.

    score(u, i) = cos(z_u, z_i) / temperature + b_i + w · f_i
    z_u = t_u + MLP(t_u)        t_u = (100 / n_u)^1/2 sum_j weight(r_j) z_j        z_i = q_i + W f_i

A user is the sum of the movies j that they rated, weighted by how highly, so users who were not in training are served
like others. f_i are the movie's features, see features.py. The MLP is computed once per user; that of He et al. 2017,
"Neural Collaborative Filtering", would be for each pair of user and movie.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Interval
from torch import Tensor, nn
from torch.nn import functional as F

from Models.Dataset import Batch, TrainingOutput, UserBatches
from Models.inputs import DataStats, Fraction, ModelInputs, NonNegFloat, NonNegInt, PositiveInt
from Models.layers import (
    ALL,
    RATING_WEIGHTS,
    TYPICAL_LENGTH,
    ItemTower,
    draw_candidates,
    loss_of_hidden,
    rating_weights,
)
from Models.sequences import PaddedHistory, pad_batch


@dataclass(frozen=True)
class RankingNCFConfig:
    """Settings of the NCF that ranks."""

    embedding_dim: PositiveInt = 128
    """size of a user's or movie's vector"""
    hidden_dim: NonNegInt = 512
    """units of the MLP's hidden layer; 0: no MLP"""
    dropout: Fraction = 0.5
    """share of the hidden units dropped in training"""
    temperature: Annotated[float, Interval(ge=0.01, lt=float("inf"))] = 0.12
    """of the softmax over cosines"""
    ids: bool = True
    """use movie embeddings, not features alone"""
    id_dropout: Fraction = 0.0
    """share of movies whose embedding is dropped in a training step"""
    negatives: PositiveInt = 8192
    """movies rated by no user of a training step that are drawn for its softmax; all in a smaller catalogue"""
    new_penalty: NonNegFloat = 0.75
    """with --id-dropout, how much lower movies without training ratings are scored, so that lists lose little"""

    task: ClassVar = "ranking"


class RankingRecommender(ItemTower):
    """The NCF of the formula above."""

    batching = UserBatches(size_in="users", similar_length=False)

    def __init__(self, config: RankingNCFConfig, stats: DataStats, inputs: ModelInputs):
        super().__init__()
        self.config, self.stats = config, stats
        # With id dropout, movies without training ratings count as new: no id, and not candidates in training.
        self.register_buffer("has_id", (inputs.count > 0) | (config.id_dropout == 0), persistent=False)
        self.register_buffer("features", inputs.features, persistent=False)
        dim, n_features = config.embedding_dim, self.features.shape[1]
        self.ids = nn.Parameter(0.02 * torch.randn(stats.n_movies, dim))  # q
        self.movie_bias = nn.Parameter(torch.zeros(stats.n_movies))
        self.from_features = nn.Linear(n_features, dim, bias=False)  # W
        self.bias_from_features = nn.Linear(n_features, 1, bias=False)  # w
        nn.init.zeros_(self.bias_from_features.weight)
        self.weight_steps = nn.Parameter(torch.tensor(RATING_WEIGHTS))
        if config.hidden_dim:
            layers = nn.Linear(dim, config.hidden_dim), nn.GELU(), nn.Dropout(config.dropout)
            self.mlp = nn.Sequential(*layers, nn.Linear(config.hidden_dim, dim))
            nn.init.zeros_(self.mlp[-1].weight)

    def tables(self) -> dict[str, list[Tensor]]:
        """The parameters with one row per movie."""
        return {"movie": [self.ids, self.movie_bias]}

    def forward(self, batch: Batch) -> TrainingOutput:
        """The loss of predicting hidden movies of the batch's users among all candidates."""
        history, has_id = pad_batch(batch)[0], self.has_id
        if self.config.id_dropout:
            has_id = has_id & (torch.rand(len(has_id), device=has_id.device) >= self.config.id_dropout)
        history, movies, log_weight = draw_candidates(history, self.stats.n_movies, self.config.negatives)
        items, excluded = self.item_tower(has_id, movies), ~self.has_id[movies]

        def logits(shown: PaddedHistory) -> Tensor:
            return (self.logits(shown, *items) + log_weight).masked_fill(excluded, -torch.inf)

        loss = loss_of_hidden(history, logits)
        return TrainingOutput(loss, len(history.user))

    def item_tower(self, has_id: Tensor | None = None, movies: Tensor | slice = ALL) -> tuple[Tensor, Tensor]:
        """z and bias of movies, [K, D] and [K]; those without an id, such as new ones, use features alone."""
        has_id = (self.has_id if has_id is None else has_id)[movies] * self.config.ids
        features = self.features[movies]
        bias = self.movie_bias[movies] * has_id + self.bias_from_features(features).squeeze(1)
        return self.ids[movies] * has_id[:, None] + self.from_features(features), bias

    def user_tower(self, history: PaddedHistory, vectors: Tensor) -> Tensor:
        """z of users with these histories, [B, D], from the vectors, [K, D], of movies as numbered in the histories."""
        weights = rating_weights(history.rating, self.weight_steps)
        scale = (TYPICAL_LENGTH / history.lengths().clamp(min=1)).sqrt()[:, None]
        taste = scale * history.spread(weights, len(vectors)) @ vectors
        return taste + self.mlp(taste) if self.config.hidden_dim else taste

    def logits(self, history: PaddedHistory, vectors: Tensor, bias: Tensor) -> Tensor:
        """Scores, [B, K], of the K movies with these vectors and biases, in the numbering of the histories."""
        cosine = F.normalize(self.user_tower(history, vectors)) @ F.normalize(vectors).T
        return cosine / self.config.temperature + bias

    def score(self, history: PaddedHistory) -> Tensor:
        """Scores of every movie for users with these histories, [B, n_movies]."""
        return self.logits(history, *self.items()) - self.config.new_penalty * ~self.has_id

    def movie_vectors(self) -> Tensor:
        """z of every movie, scaled to length 1, [n_movies, D]."""
        return F.normalize(self.items()[0])

    def user_vectors(self, history: PaddedHistory) -> Tensor:
        """z of users with these histories, scaled to length 1 / temperature, [B, D]."""
        vectors, _ = self.items()
        return F.normalize(self.user_tower(history, vectors)) / self.config.temperature
