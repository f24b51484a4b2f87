"""Autoencoder + EASE: what else a user would rate highly, from the unordered set of movies that they rated.

    score(u, i) = log(max(x_u · B_i, 0) + 0.1) + weight * log softmax_i(h_u · v_i + b_i)
    h_u = MLP([rated or not, how highly])    v_i = q_i + W f_i    f_i = [title, genres, decade, ...], see features.py

B is EASE's closed form (Models/EASE.py), solved from x, the ratings weighted by how high they are, and from texts,
categories, decades and (at a tenth) names, each treated as a user who rated the movies that have it. In large
catalogues, B covers only the movies with the most ratings.
The network is a denoising autoencoder (Wu et al. 2016, "Collaborative Denoising Auto-Encoders"): each training step
hides some of a user's ratings, and the softmax over all movies not shown must find the hidden ones that the user
rated highly. With weight 0 the model is EASE alone.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from Models.Dataset import Batch, Model, TrainingOutput, UserBatches
from Models.EASE import as_numpy, content_gram, item_weights, log_score, most_rated, rating_matrix
from Models.inputs import HIGHEST, DataStats, Fraction, ModelInputs, NonNegFloat, PositiveInt
from Models.layers import TYPICAL_LENGTH, loss_of_hidden, rating_weights
from Models.sequences import PaddedHistory, pad_batch


@dataclass(frozen=True)
class AutoencoderConfig:
    """Settings of the autoencoder."""

    embedding_dim: PositiveInt = 512
    """units of each of the two layers, and size of a movie's vector"""
    dropout: Fraction = 0.5
    """share of units dropped in training"""
    network_weight: NonNegFloat = 0.3
    """weight of the network relative to EASE; 0: EASE alone"""
    ease_movies: PositiveInt = 12_000
    """number of most-rated movies that EASE is solved for: 0.6 GB for 12,000, several times that while solving"""
    feature_weight: NonNegFloat = 100.0
    """number of users that one movie feature counts as in EASE"""

    task: ClassVar = "ranking"


class Autoencoder(Model):
    """The autoencoder with EASE of the formula above."""

    batching = UserBatches(size_in="users", similar_length=False)

    def __init__(self, config: AutoencoderConfig, stats: DataStats, inputs: ModelInputs):
        super().__init__()
        self.config, self.stats = config, stats
        n, dim = stats.n_movies, config.embedding_dim
        self.solved = most_rated(inputs.count, config.ease_movies)
        self.register_buffer("features", inputs.features, persistent=False)
        self.register_buffer("item_weights", self.ease(inputs) if inputs.item_weights is None else inputs.item_weights)
        self.encoder = nn.Sequential(
            *(nn.Linear(2 * n, dim), nn.GELU(), nn.Dropout(config.dropout)),
            *(nn.Linear(dim, dim), nn.GELU(), nn.Dropout(config.dropout)),
        )
        self.vectors = nn.Parameter(0.02 * torch.randn(n, dim))
        self.bias = nn.Parameter(torch.zeros(n))
        self.from_features = nn.Linear(self.features.shape[1], dim, bias=False)

    def tables(self) -> dict[str, list[Tensor]]:
        """The parameters with one row per movie; the encoder has two inputs per movie."""
        inputs = self.encoder[0].weight.unflatten(1, (2, self.stats.n_movies)).permute(2, 0, 1)
        return {"movie": [self.vectors, self.bias, inputs]}

    def ease(self, inputs: ModelInputs) -> Tensor:
        """B from the training ratings, [n, n] for the n solved movies."""
        x = rating_matrix(inputs.training(), self.stats)
        content = self.config.feature_weight * content_gram(inputs, self.stats, self.solved)
        return item_weights(x[:, as_numpy(self.solved)], content=content)

    def movie_vectors(self) -> Tensor:
        """v of every movie, [n_movies, D]."""
        return self.vectors + self.from_features(self.features)

    def forward(self, batch: Batch) -> TrainingOutput:
        """The loss of predicting hidden movies of the batch's users."""
        history = pad_batch(batch)[0]
        return TrainingOutput(loss_of_hidden(history, self.logits), len(history.user))

    def user_vectors(self, history: PaddedHistory) -> Tensor:
        """h of users with these histories, [B, D]."""
        n = self.stats.n_movies
        how_highly = history.spread(history.rating / HIGHEST - 0.7, n)
        x = torch.cat([history.spread(torch.ones_like(history.rating), n), how_highly], 1)
        x = x * (TYPICAL_LENGTH / history.lengths().clamp(min=1)).sqrt()[:, None]
        return self.encoder(x)

    def logits(self, history: PaddedHistory) -> Tensor:
        """h · v + b, [B, n_movies]."""
        return self.user_vectors(history) @ self.movie_vectors().T + self.bias

    def score(self, history: PaddedHistory) -> Tensor:
        """Scores of every movie for users with these histories, [B, n_movies]."""
        x = history.spread(rating_weights(history.rating), self.stats.n_movies)
        near = torch.zeros_like(x)
        near[:, self.solved] = x[:, self.solved] @ self.item_weights
        return log_score(near) + self.config.network_weight * self.logits(history).log_softmax(1)
