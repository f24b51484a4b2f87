"""Sequential models: which movie a user rates next, from those that they rated so far, in order.

    score(u, i) = h_n · v_i                        h = layers([start, x_1, ..., x_n])
    x_k = sqrt(D) (v_i + rating + gap) + position    v_i = q_i + W f_i    f_i = [title vector, genres]

The layers are a causal Transformer (Kang and McAuley 2018, "Self-Attentive Sequential Recommendation") or a GRU (Hidasi
et al. 2016, "Session-based Recommendations with Recurrent Neural Networks"). The loss is cross-entropy over the whole
catalogue (Klenitskiy and Vasilev 2023, "Turning Dross Into Gold Loss"). As v_i is made of the movie's features as well,
on both sides, movies that nobody has rated can be ranked.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from Models.Dataset import Batch, TrainingOutput, UserBatches
from Models.inputs import HIGHEST, LOWEST, DataStats, Fraction, ModelInputs, PositiveInt
from Models.sequences import PaddedHistory, pad_batch

RATING_STEPS = 11  # half stars of a scale to 5, or as fine on another
GAP_STEPS = 32  # doublings of a second: up to 68 years


@dataclass(frozen=True)
class SequentialConfig:
    """Settings of the sequential models."""

    architecture: Literal["transformer", "gru"] = "transformer"
    """what reads the history"""
    embedding_dim: PositiveInt = 64
    """size of a movie's vector"""
    num_layers: PositiveInt = 2
    """layers"""
    num_heads: PositiveInt = 2
    """attention heads of the transformer"""
    max_length: PositiveInt = 200
    """the latest ratings of a user that are read"""
    dropout: Fraction = 0.2
    """share of units dropped in training"""
    ids: bool = True
    """use movie embeddings, not features alone"""
    id_dropout: Fraction = 0.0
    """share of movies whose embedding is dropped in a training step"""

    task: ClassVar = "ranking"

    def __post_init__(self) -> None:
        if self.architecture == "transformer" and self.num_heads and self.embedding_dim % self.num_heads:
            raise ValueError(f"--embedding-dim {self.embedding_dim} is not a multiple of --num-heads {self.num_heads}.")


class NextMovieLoss(torch.autograd.Function):
    """The sum of cross-entropies of each rated movie; its gradient comes with it, while the logits are in the cache.

    User by user, as the logits of all would fill the memory. Autograd's way takes a quarter longer.
    """

    @staticmethod
    def forward(ctx, vectors: Tensor, hidden: Tensor, movies: Tensor, count: Tensor, unrated: Tensor) -> Tensor:
        """vectors [n_movies, D], hidden [B, L + 1, D], movies [B, L] of which user b has count[b] -> a scalar."""
        total, to_vectors, to_hidden = hidden.new_zeros(()), torch.zeros_like(vectors), torch.zeros_like(hidden)
        for row, n in enumerate(count.tolist()):
            h, own = hidden[row, :n], movies[row, :n]
            logits = h @ vectors.T
            right = logits.gather(1, own[:, None])
            logits.index_fill_(1, torch.cat([own, unrated]), -torch.inf).scatter_(1, own[:, None], right)
            norm = logits.logsumexp(1, keepdim=True)
            total += (norm - right).sum()
            to_logits = logits.sub_(norm).exp_()  # softmax, minus 1 for the right movie
            to_logits.scatter_add_(1, own[:, None], torch.full_like(right, -1.0))
            to_hidden[row, :n] = to_logits @ vectors
            to_vectors.addmm_(to_logits.T, h)
        ctx.save_for_backward(to_vectors, to_hidden)
        return total

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        to_vectors, to_hidden = ctx.saved_tensors
        return gradient * to_vectors, gradient * to_hidden, None, None, None


class Sequential(nn.Module):
    """The causal Transformer or GRU of the formula above."""

    batching = UserBatches(size_in="users")

    def __init__(self, config: SequentialConfig, stats: DataStats, inputs: ModelInputs):
        super().__init__()
        self.config, self.stats = config, stats
        self.notices = [] if stats.newest else ["The data has no times: the order of the file stands in for them."]
        rated = torch.bincount(inputs.movie, minlength=stats.n_movies) > 0
        self.register_buffer("features", inputs.features, persistent=False)
        self.register_buffer("rated", rated, persistent=False)  # movies with training ratings
        self.register_buffer("gap_starts", 2 ** torch.arange(1, GAP_STEPS) - 1, persistent=False)
        dim = config.embedding_dim
        self.ids = nn.Embedding(stats.n_movies, dim)
        self.from_features = nn.Linear(stats.n_features, dim, bias=False)
        self.start = nn.Parameter(torch.zeros(dim))
        self.rating = nn.Embedding(RATING_STEPS, dim)
        self.gap = nn.Embedding(GAP_STEPS, dim)
        self.position = nn.Embedding(config.max_length + 1, dim)
        for part in (self.ids, self.rating, self.gap, self.position):
            nn.init.normal_(part.weight, std=0.02)
        nn.init.normal_(self.from_features.weight, std=0.02)
        if not config.ids:
            nn.init.zeros_(self.ids.weight).requires_grad_(False)
        self.dropout = nn.Dropout(config.dropout)
        if config.architecture == "gru":
            dropout = config.dropout if config.num_layers > 1 else 0.0
            self.layers = nn.GRU(dim, dim, config.num_layers, batch_first=True, dropout=dropout)
        else:
            block = nn.TransformerEncoderLayer(
                dim, config.num_heads, 4 * dim, config.dropout, activation="gelu", batch_first=True, norm_first=True
            )
            block.self_attn.dropout = 0.0  # drawing which weights to drop costs time, and its fused form does without
            self.layers = nn.TransformerEncoder(block, config.num_layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(dim)

    def tables(self) -> dict[str, list[Tensor]]:
        """The parameters with a row for each movie."""
        return {"movie": [self.ids.weight]}

    def forward(self, batch: Batch) -> TrainingOutput:
        """The mean loss of predicting each rated movie of the batch's users from those before it."""
        history = self.window(pad_batch(batch)[0])
        vectors = self.movie_vectors()
        hidden = self.read(vectors, history)
        return TrainingOutput(self.loss(vectors, hidden, history), history.lengths().sum())

    def movie_vectors(self) -> Tensor:
        """v of every movie, [n_movies, D]; a movie without training ratings has no q."""
        has_id = self.rated
        if self.training and self.config.id_dropout:
            has_id = has_id & (torch.rand(len(has_id), device=has_id.device) >= self.config.id_dropout)
        return self.ids.weight * has_id[:, None] + self.from_features(self.features)

    def window(self, history: PaddedHistory) -> PaddedHistory:
        """At most `max_length` ratings of each user; of longer histories the latest or, half the time, any."""
        length, count = self.config.max_length, history.lengths()
        if history.movie.shape[1] <= length:
            return history
        latest = (count - length).clamp(min=0)
        draw = torch.rand(2, len(count), device=count.device)
        return history.window(torch.where(draw[0] < 0.5, (draw[1] * (latest + 1)).long(), latest), length)

    def read(self, vectors: Tensor, history: PaddedHistory) -> Tensor:
        """h before the first and after each rating, [B, L + 1, D]; none knows of later ratings."""
        share = ((history.rating - LOWEST) / (HIGHEST - LOWEST)).clamp(0, 1)
        rating = self.rating((share * (RATING_STEPS - 1)).round().long())
        apart = history.time.diff(dim=1, prepend=history.time[:, :1]).clamp(min=0)
        gap = self.gap(torch.bucketize(apart, self.gap_starts, right=True))
        x = (vectors[history.movie] + rating + gap) * self.config.embedding_dim**0.5
        x = torch.cat([self.start.expand(len(x), 1, -1), x], 1)
        x = self.dropout(x + self.position.weight[: x.shape[1]])
        if self.config.architecture == "gru":
            return self.norm(self.layers(x)[0])
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1], device=x.device)
        return self.norm(self.layers(x, mask, is_causal=True))

    def loss(self, vectors: Tensor, hidden: Tensor, history: PaddedHistory) -> Tensor:
        """Mean cross-entropy of the rated movies, each among the movies that the user has not rated in this window.

        Movies without training ratings are no candidates: that they are not chosen says nothing of them.
        """
        unrated, count = (~self.rated).nonzero().squeeze(1), history.lengths()
        return NextMovieLoss.apply(vectors, hidden, history.movie, count, unrated) / count.sum()

    def score(self, history: PaddedHistory) -> Tensor:
        """How likely each movie is to be next for users with these histories, as logits: [B, n_movies]."""
        vectors = self.movie_vectors()
        return self.last_hidden(vectors, history) @ vectors.T

    def user_vectors(self, history: PaddedHistory) -> Tensor:
        """h of users after the last rating of these histories, [B, D]."""
        return self.last_hidden(self.movie_vectors(), history)

    def last_hidden(self, vectors: Tensor, history: PaddedHistory) -> Tensor:
        """The same from the movies' vectors, [n_movies, D]."""
        history = history.latest(self.config.max_length)
        hidden = self.read(vectors, history)
        return hidden[torch.arange(len(hidden), device=hidden.device), history.lengths()]
