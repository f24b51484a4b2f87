"""Sequential models: which movie a user rates next, from those that they rated so far, in order.

    logits over the movies = h_k · v_i           h = layers([start, x_1, ..., x_k])
    x_k = sqrt(D) (v_i + stars + gap) + position    v_i = q_i + W f_i    f_i = [title vector, genres]

The layers are a causal Transformer (Kang and McAuley 2018, "Self-Attentive Sequential Recommendation") or a GRU (Hidasi
et al. 2016, "Session-based Recommendations with Recurrent Neural Networks"). The loss is cross-entropy over the whole
catalogue (Klenitskiy and Vasilev 2023, "Turning Dross Into Gold Loss"). As v_i is made of the movie's features too, on
both sides, movies that nobody has rated can be ranked.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from Models.Dataset import Batch, Batching, Output
from Models.histories import Histories, Past, padded, running_count
from Models.inputs import DataSizes, FeatureConfig, Known, prepared
from utils.cli import flag, positive, share

STAR_STEPS = 11  # half stars of a scale to 5, or as fine on another
GAP_STEPS = 32  # doublings of a second: up to 68 years


@dataclass(frozen=True)
class SequentialConfig(FeatureConfig):
    """What the sequential model is made of."""

    layer: Literal["transformer", "gru"] = flag("transformer", "what reads the history")
    embedding: int = flag(64, "numbers in a movie's vector", type=positive)
    layers: int = flag(2, "layers", type=positive)
    heads: int = flag(2, "heads of attention", type=positive)
    length: int = flag(200, "ratings of a user that are looked at, the latest", type=positive)
    dropout: float = flag(0.2, "share of units dropped in training", type=share)
    ids: bool = flag(True, "movies have vectors of their own, not of their features alone")
    id_dropout: float = flag(0.0, "share of movies that a training step knows by their features alone", type=share)


class NextMovieLoss(torch.autograd.Function):
    """The sum of cross-entropies of each rated movie; its gradient comes with it, while the logits are in the cache.

    User by user, as the logits of all would fill the memory. Autograd's way takes a quarter longer.
    """

    @staticmethod
    def forward(ctx, vectors: Tensor, hidden: Tensor, movies: Tensor, count: Tensor, unknown: Tensor) -> Tensor:
        """vectors [n_movies, D], hidden [B, L + 1, D], movies [B, L] of which user b has count[b] -> a scalar."""
        total, to_vectors, to_hidden = hidden.new_zeros(()), torch.zeros_like(vectors), torch.zeros_like(hidden)
        for row, n in enumerate(count.tolist()):
            h, own = hidden[row, :n], movies[row, :n]
            logits = h @ vectors.T
            right = logits.gather(1, own[:, None])
            logits.index_fill_(1, torch.cat([own, unknown]), -torch.inf).scatter_(1, own[:, None], right)
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


class Sequential(Histories):
    """The model of this file's head."""

    batching = Batching(whole_users=True, counts="users", alike=True)

    def __init__(self, config: SequentialConfig, sizes: DataSizes, known: Known | None = None):
        super().__init__(sizes, known)
        self.config = config
        if known:
            self.features = prepared(known.features, config, sizes)
        d = config.embedding
        self.ids = nn.Embedding(sizes.n_movies, d)
        self.from_features = nn.Linear(sizes.n_title + sizes.n_genres, d, bias=False)
        self.start = nn.Parameter(torch.zeros(d))
        self.stars_of = nn.Embedding(STAR_STEPS, d)
        self.gap = nn.Embedding(GAP_STEPS, d)
        self.position = nn.Embedding(config.length + 1, d)
        for part in (self.ids, self.stars_of, self.gap, self.position):
            nn.init.normal_(part.weight, std=0.02)
        nn.init.normal_(self.from_features.weight, std=0.02)
        if not config.ids:
            nn.init.zeros_(self.ids.weight).requires_grad_(False)
        self.dropout = nn.Dropout(config.dropout)
        if config.layer == "gru":
            dropout = config.dropout if config.layers > 1 else 0.0
            self.layers = nn.GRU(d, d, config.layers, batch_first=True, dropout=dropout)
        else:
            block = nn.TransformerEncoderLayer(
                d, config.heads, 4 * d, config.dropout, activation="gelu", batch_first=True, norm_first=True
            )
            block.self_attn.dropout = 0.0  # drawing which weights to drop costs time, and its fused form does without
            self.layers = nn.TransformerEncoder(block, config.layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(d)

    def forward(self, batch: Batch) -> Output:
        """The mean loss of predicting each rated movie of the batch's users from those before it."""
        place = torch.unique(batch["user"], return_inverse=True)[1]
        past = self.window(padded(place, running_count(place), batch))
        vectors = self.movie_vectors()
        hidden = self.read(vectors, past)
        return Output(None, self.loss(vectors, hidden, past), past.count().sum())

    def movie_vectors(self) -> Tensor:
        """v of every movie, [n_movies, D]; a movie without training ratings has no q."""
        has_id = self.count_of_movie > 0
        if self.training and self.config.id_dropout:
            has_id = has_id & (torch.rand(len(has_id), device=has_id.device) >= self.config.id_dropout)
        return self.ids.weight * has_id[:, None] + self.from_features(self.features)

    def window(self, past: Past) -> Past:
        """At most `length` ratings of each user; of longer pasts the latest or, half the time, any."""
        length, count = self.config.length, past.count()
        if past.movie.shape[1] <= length:
            return past
        latest = (count - length).clamp(min=0)
        draw = torch.rand(2, len(count), device=count.device)
        first = torch.where(draw[0] < 0.5, (draw[1] * (latest + 1)).long(), latest)
        return past.part(first, length)

    def read(self, vectors: Tensor, past: Past) -> Tensor:
        """h before the first and after each rating, [B, L + 1, D]; none knows of later ratings."""
        share = (past.stars - self.sizes.low) / max(self.sizes.high - self.sizes.low, 1e-6)
        stars = self.stars_of((share.clamp(0, 1) * (STAR_STEPS - 1)).round().long())
        apart = past.time.diff(dim=1, prepend=past.time[:, :1]).clamp(min=0)
        gap = self.gap((1 + apart.double()).log2().long().clamp(max=GAP_STEPS - 1))
        x = (vectors[past.movie] + stars + gap) * self.config.embedding**0.5
        x = torch.cat([self.start.expand(len(x), 1, -1), x], 1)
        x = self.dropout(x + self.position.weight[: x.shape[1]])
        if self.config.layer == "gru":
            return self.norm(self.layers(x)[0])
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1], device=x.device)
        return self.norm(self.layers(x, mask, is_causal=True))

    def loss(self, vectors: Tensor, hidden: Tensor, past: Past) -> Tensor:
        """Mean cross-entropy of the rated movies, each among the movies that the user has not rated in this window.

        Movies without training ratings are no candidates: that they are not chosen says nothing of them.
        """
        unknown = (self.count_of_movie == 0).nonzero().squeeze(1)
        with torch.autocast(hidden.device.type, enabled=False):  # its in-place sums want one type
            total = NextMovieLoss.apply(vectors.float(), hidden.float(), past.movie, past.count(), unknown)
        return total / past.count().sum()

    def score_past(self, past: Past) -> Tensor:
        """How likely each movie is to be next for users with these ratings, as logits: [B, n_movies]."""
        past = past.part((past.count() - self.config.length).clamp(min=0), self.config.length)
        vectors = self.movie_vectors()
        hidden = self.read(vectors, past)
        last = hidden[torch.arange(len(hidden), device=hidden.device), past.count()]
        return last @ vectors.T
