"""Autoencoder + EASE: what else a user would rate highly, from the set of movies that they rated, in any order.

    score(u, i) = log(max(x_u · B_i, 0) + 0.1) + weight * log softmax_i(h_u · v_i + b_i)
    h_u = MLP([rated or not, how many stars])        v_i = q_i + W f_i        f_i = [title vector, genres, decade]

B is EASE's closed form (Steck 2019, "Embarrassingly Shallow Autoencoders") over x, a rating counting by its stars, and
over the movies' features, each as if it were a user who rated the movies that have it. The network is a denoising
autoencoder (Wu et al. 2016, "Collaborative Denoising Auto-Encoders"): each training step hides some of a user's
ratings, and the softmax over the other movies must find those of them that the user liked.
Validation sees both together; with weight 0 it is EASE alone.
"""

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from Models.baselines import EASE_STARS, by_stars, item_item
from Models.Dataset import Batch, Batching, Output
from Models.histories import Histories, Past, padded, running_count
from Models.inputs import DataSizes, FeatureConfig, Known, decades, prepared
from utils.cli import flag, not_negative, positive, share
from utils.files import UserError

TARGET_STARS = (0.0, 0.03, 0.15, 1.0, 1.0)  # what finding a hidden movie of one to five stars counts
MOST_MOVIES = 30_000  # 3.6 GB for B, and some times that while it is solved for
TYPICAL = 100  # ratings: inputs are scaled as if every user had so many
KEPT = (0.5, 0.9)  # the least and the greatest share of a user's ratings that a training step shows


@dataclass(frozen=True)
class AutoencoderConfig(FeatureConfig):
    """What the autoencoder is made of."""

    embedding: int = flag(512, "units of each of the two layers, and numbers in a movie's vector", type=positive)
    dropout: float = flag(0.5, "share of units dropped in training", type=share)
    weight: float = flag(0.3, "weight of the network beside EASE", type=not_negative)
    feature_weight: float = flag(
        100.0, "weight of movies' features in EASE: likeness as by so many users", type=not_negative
    )


class Autoencoder(Histories):
    """The model of this file's head."""

    batching = Batching(whole_users=True, counts="users")

    def __init__(self, config: AutoencoderConfig, sizes: DataSizes, known: Known | None = None):
        super().__init__(sizes, known)
        self.config = config
        n, d = sizes.n_movies, config.embedding
        if n > MOST_MOVIES:
            raise UserError(
                f"EASE keeps a number a pair of {n:,} movies, too many: take --preset ncf-ranking or transformer."
            )
        if known:
            self.features = prepared(known.features, config, sizes)
        self.register_buffer("item_item", self.ease(known) if known else torch.zeros(n, n))
        self.read = nn.Sequential(
            *(nn.Linear(2 * n, d), nn.GELU(), nn.Dropout(config.dropout)),
            *(nn.Linear(d, d), nn.GELU(), nn.Dropout(config.dropout)),
        )
        self.vectors = nn.Parameter(0.02 * torch.randn(n, d))
        self.bias = nn.Parameter(torch.zeros(n))
        self.from_features = nn.Linear(self.movie_features().shape[1], d, bias=False)

    def ease(self, known: Known) -> Tensor:
        """B, from the training ratings, [n_movies, n_movies]."""
        weights = by_stars(known.stars / self.sizes.high, EASE_STARS).numpy()
        pairs = known.user.numpy(), known.movie.numpy()
        x = sp.csr_matrix((weights, pairs), (self.sizes.n_users, self.sizes.n_movies), np.float32)
        return item_item(x, features=self.config.feature_weight**0.5 * self.movie_features())

    def movie_features(self) -> Tensor:
        """f of every movie."""
        return torch.cat([self.features, decades(self.year)], 1)

    def movie_vectors(self) -> Tensor:
        """v of every movie, [n_movies, D]."""
        return self.vectors + self.from_features(self.movie_features())

    def forward(self, batch: Batch) -> Output:
        """The mean loss of finding the liked ones of the hidden movies of the batch's users."""
        place = torch.unique(batch["user"], return_inverse=True)[1]
        past = padded(place, running_count(place), batch)
        low, high = KEPT
        shown = torch.rand_like(past.stars) < low + (high - low) * torch.rand(len(past.stars), 1, device=place.device)
        hidden = self.rows(past, ~shown, by_stars(self.share_of_stars(past), TARGET_STARS))
        shown = Past(past.movie, past.stars, past.time, past.real & shown)
        logits = self.logits(shown).masked_fill(self.rows(shown, shown.real, 1.0) > 0, -torch.inf)
        found = torch.where(hidden > 0, hidden * F.log_softmax(logits, 1), 0.0).sum(1)
        return Output(None, -(found / hidden.sum(1).clamp(min=1e-6).sqrt()).mean(), len(found))

    def rows(self, past: Past, which: Tensor, values: Tensor | float) -> Tensor:
        """Users by movies: `values` of the past's ratings where `which`, 0 elsewhere, [B, n_movies]."""
        values = (past.real & which) * values
        return values.new_zeros(len(values), self.sizes.n_movies).float().scatter_add(1, past.movie, values.float())

    def share_of_stars(self, past: Past) -> Tensor:
        """Stars as shares of the highest rating, [B, L]."""
        return past.stars / self.sizes.high

    def logits(self, past: Past) -> Tensor:
        """h · v + b, [B, n_movies]."""
        x = torch.cat([self.rows(past, past.real, 1.0), self.rows(past, past.real, self.share_of_stars(past) - 0.7)], 1)
        x = x * (TYPICAL / past.count().clamp(min=1)).sqrt()[:, None]
        return self.read(x) @ self.movie_vectors().T + self.bias

    def score_past(self, past: Past) -> Tensor:
        """How much users with these ratings would want each movie, [B, n_movies]."""
        near = self.rows(past, past.real, by_stars(self.share_of_stars(past), EASE_STARS)) @ self.item_item
        return (near.clamp(min=0) + 0.1).log() + self.config.weight * self.logits(past).log_softmax(1)
