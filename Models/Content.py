"""Content + EASE: movies like those that a user chose, by their features and by who else chose them.

    as_new(u, i) = gamma log(x_u · S_i + 0.01) + p popularity_i             S_ij = sum_b a_b similarity_b(i, j)
    known(u, i)  = c as_new(u, i) + w log(max(x_u · B_i, 0) + 0.1) + d

x_u are the weights of u's ratings by movie, for S divided by their number; B is EASE's closed form (Models/EASE.py). A
movie without training ratings is scored as new: by its similarity, block by block, to what the user rated, and by the
popularity predicted from its features (Models/features.py). So is a random half of the others in each training step.
The few weights are learned with a softmax over all rated movies, which must find hidden ones that the user rated
highly; MARec's are by regression on clicks (Monteil et al. 2024, "MARec: Metadata Alignment for cold-start
Recommendation"). In training, a user's B is solved from the other half of the users, without the user's own ratings.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import torch
from scipy.sparse.linalg import eigsh
from torch import Tensor, nn
from torch.nn import functional as F

from Models.Dataset import Batch, Model, TrainingOutput, UserBatches
from Models.EASE import content_gram, item_weights, log_score, products, rating_matrix
from Models.inputs import POPULARITY, YEAR, DataStats, Fraction, ModelInputs, NonNegFloat, UnsuitableData
from Models.layers import ALL, RATING_WEIGHTS, loss_of_hidden, rating_weights
from Models.sequences import PaddedHistory, pad_batch

OF_PAIRS = ("text", "category", YEAR, "number")  # kinds of blocks by which movies are compared, besides names
MAX_MOVIES = 10_000  # 400 MB for each block's similarities
YEARS_APART = 5.0  # at which the similarity of two movies is e^-1
FLOOR = 0.01  # added to the similarity to what a user rated, which is 1 on average
N_VECTORS = 128


@dataclass(frozen=True)
class ContentConfig:
    """Settings of the content model."""

    share_as_new: Fraction = 0.5
    """share of movies that are scored as new in a training step"""
    new_penalty: NonNegFloat = 1.4
    """how much lower movies without training ratings are scored, so that lists lose little to wrong ones"""
    feature_weight: NonNegFloat = 100.0
    """number of users that one movie feature counts as in EASE"""

    task: ClassVar = "ranking"


class Content(Model):
    """The content model of the formula above.

    Raises:
        UnsuitableData: the catalogue is too large for similarities of all pairs.
    """

    batching = UserBatches(size_in="users", similar_length=False)
    ranks_new_by_ease = False

    def __init__(self, config: ContentConfig, stats: DataStats, inputs: ModelInputs):
        super().__init__()
        self.config, self.stats = config, stats
        n = stats.n_movies
        if n > MAX_MOVIES:
            raise UnsuitableData(f"Content keeps several numbers per pair of {n:,} movies: take --preset ncf-ranking.")
        n_blocks = sum(block.kind in OF_PAIRS for block in stats.blocks) + len(stats.names)
        if not n_blocks:
            raise UnsuitableData("The content model needs features of the movies: name some with --blocks.")
        popularity = inputs.block(POPULARITY, stats)
        popularity = torch.zeros(n) if popularity is None else popularity.squeeze(1)
        self.register_buffer("popularity", popularity, persistent=False)
        self.register_buffer("rated", inputs.count > 0, persistent=False)
        self.inputs = inputs
        self.made_vectors: Tensor | None = None
        solved = inputs.item_weights
        self.register_buffer("item_weights", self.ease() if solved is None else solved)
        self.of_other_half: list[Tensor] | None = None
        self.log_share = nn.Parameter(torch.zeros(n_blocks))  # of a
        self.weight_steps = nn.Parameter(torch.tensor(RATING_WEIGHTS))
        self.exponent = nn.Parameter(torch.tensor(2.0))  # gamma
        self.of_popularity = nn.Parameter(torch.tensor(0.7))  # p
        self.of_known = nn.Parameter(torch.tensor([0.5, 3.0, 0.0]))  # c, w, d

    @cached_property
    def similarity(self) -> Tensor:
        """Similarity of movies by each block, [blocks, n_movies, n_movies]; made on first use, as it takes long."""
        with torch.inference_mode(False):  # wherever it is first used, training must be able to use it too
            return scaled_similarities(self.stats, self.inputs).to(self.popularity.device)

    def ease(self, left_out: int | None = None) -> Tensor:
        """B from the training ratings, [n_movies, n_movies]; `left_out`: without users of even (0) or odd (1) index."""
        known = self.inputs.training()
        rows = ALL if left_out is None else known.users() % 2 != left_out
        x = rating_matrix(known, self.stats, rows)
        return item_weights(x, content=self.config.feature_weight * content_gram(self.inputs, self.stats))

    def train(self, mode: bool = True) -> "Content":
        """Before the first training step, B is solved from each half of the users for the other half."""
        self.made_vectors = None
        if mode and self.of_other_half is None:
            self.of_other_half = [self.ease(half).to(self.item_weights.device) for half in range(2)]
        return super().train(mode)

    def tables(self) -> dict[str, list[Tensor]]:
        """No parameter has a row per movie."""
        return {"movie": []}

    def forward(self, batch: Batch) -> TrainingOutput:
        """The loss of predicting hidden movies of the batch's users among all rated ones, some scored as new."""
        history = pad_batch(batch)[0]
        known = torch.rand(self.stats.n_movies, device=history.user.device) >= self.config.share_as_new
        loss = loss_of_hidden(history, lambda shown: self.logits(shown, known).masked_fill(~self.rated, -torch.inf))
        return TrainingOutput(loss, len(history.user))

    def logits(self, history: PaddedHistory, known: Tensor) -> Tensor:
        """Scores of every movie for users with these histories, [B, n_movies]; as new where `known` is False."""
        alike = (self.mean_weights(history) @ torch.tensordot(self.log_share.exp(), self.similarity, 1)).clamp(min=0)
        as_new = self.exponent * (alike + FLOOR).log() + self.of_popularity * self.popularity
        of_content, of_ease, shift = self.of_known
        by_ease = log_score(self.ease_scores(history))
        return torch.where(known, of_content * as_new + of_ease * by_ease + shift, as_new)

    def mean_weights(self, history: PaddedHistory) -> Tensor:
        """x of users for S: the weights of their ratings, divided by their number, [B, n_movies]."""
        x = history.spread(rating_weights(history.rating, self.weight_steps), self.stats.n_movies)
        return x / history.lengths().clamp(min=1)[:, None]

    def ease_scores(self, history: PaddedHistory) -> Tensor:
        """EASE's x B, [B, n_movies]; in training with the B from the other half of the users."""
        x = history.spread(rating_weights(history.rating), self.stats.n_movies)
        if not self.training:
            return x @ self.item_weights
        found = torch.empty_like(x)
        for half, weights in enumerate(self.of_other_half):
            mine = history.user % 2 == half
            found[mine] = x[mine] @ weights
        return found

    def score(self, history: PaddedHistory) -> Tensor:
        """Scores of every movie for users with these histories, [B, n_movies]."""
        return self.logits(history, self.rated) - self.config.new_penalty * ~self.rated

    def movie_vectors(self) -> Tensor:
        """Vectors whose products approximate the summed similarities of all blocks, [n_movies, at most 128].

        They are computed once, until `train` or `eval` is called.
        """
        if self.made_vectors is None:
            total = torch.tensordot(self.log_share.exp(), self.similarity, 1).detach().cpu().numpy()
            k = min(N_VECTORS, len(total) - 1)
            values, vectors = eigsh(total, k, which="LA", v0=np.ones(len(total)))
            self.made_vectors = torch.from_numpy(vectors * np.sqrt(values.clip(min=0)))
        return self.made_vectors

    def user_vectors(self, history: PaddedHistory) -> Tensor:
        """Vectors whose products with movie vectors are the similarity to what users rated, [B, at most 128]."""
        return self.mean_weights(history) @ self.movie_vectors().to(history.rating.device)


def mean_sum(similarity: Tensor) -> Tensor:
    """The mean over movies of their summed similarity to all others, a scalar."""
    return similarity.sum().clamp(min=1e-9) / len(similarity)


def scaled_similarities(stats: DataStats, inputs: ModelInputs) -> Tensor:
    """Similarity of movies by each block, scaled so that a movie's similarities sum to 1 on average.

    New movies do not change the scale.

    Returns:
        [blocks, n_movies, n_movies]
    """
    n_old = stats.n_movies - inputs.n_new
    return torch.stack([one / mean_sum(one[:n_old, :n_old]) for one in similarities(stats, inputs).values()])


def similarities(stats: DataStats, inputs: ModelInputs) -> dict[str, Tensor]:
    """Similarity of movies by each block, [n_movies, n_movies], 0 to 1, and 0 of a movie with itself.

    Names and categories: cosine, weighted by inverse document frequency. Texts: squared positive cosine, as all are a
    little similar. Years and numbers: e^-|difference|.
    """
    found = {}
    for block in stats.blocks:
        values = inputs.block(block.name, stats)
        if block.kind == "text":
            found[block.name] = F.normalize(values) @ F.normalize(values).T
            found[block.name] = found[block.name].clamp(min=0).square()
        elif block.kind == "category":
            n_old = len(values) - inputs.n_new
            rare = (n_old / values[:n_old].sum(0).clamp(min=1)).log()
            unit = F.normalize(values * rare)
            found[block.name] = unit @ unit.T
        elif block.kind == YEAR:
            found[block.name] = nearness(inputs.year[:, None] / YEARS_APART, inputs.year > 0)
        elif block.kind == "number":
            found[block.name] = nearness(values, values.squeeze(1) != 0)
    for block, names in zip(stats.names, inputs.names, strict=True):
        found[block.name] = products(names)
    return {name: one.fill_diagonal_(0) for name, one in found.items()}


def nearness(values: Tensor, known: Tensor) -> Tensor:
    """e^-|difference| of one number for every two movies, [n, n]; 0 where either is unknown."""
    return torch.exp(-(values - values.T).abs()) * (known[:, None] & known)
