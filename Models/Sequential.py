"""Sequential models: which movie a user rates next, from what they have rated so far and when.

    score(u, i) = h_n · v_i                          h = layers([x_0, x_1, ..., x_n])      x_0: before the first rating
    x_k = sqrt(D) (v_i + rating + gap) + position    v_i = q_i + W f_i    f_i: the movie's features

If the time of the request is used (for a past rating, the time of the next one), `gap` is the time from rating k to its
request; if not, the time from the previous rating to rating k.

The layers are a causal Transformer (Kang and McAuley 2018, "Self-Attentive Sequential Recommendation") or a GRU (Hidasi
et al. 2016, "Session-based Recommendations with Recurrent Neural Networks"). The Transformer's attention has a learned
bias for the time and for the number of ratings between a rating and the request (after Zhai et al. 2024, "Actions Speak
Louder than Words"). The loss is cross-entropy over the whole catalogue (Klenitskiy and Vasilev 2023, "Turning Dross
Into Gold Loss"). As v_i includes the movie's features, in input and output, movies that nobody has rated can be
ranked.
"""

import dataclasses
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from Models.Dataset import Batch, Model, TrainingOutput, UserBatches
from Models.inputs import HIGHEST, LOWEST, DataStats, Fraction, ModelInputs, PositiveInt
from Models.sequences import PaddedHistory, longest_gap, pad_batch

RATING_STEPS = 11  # half stars on a scale from 0 to 5, or as fine on another
GAP_STEPS = 64  # bins of time gaps, each 35 % longer than the one before: up to 7 years
LOG_STEP = 0.301  # about the logarithm of 1.35
READ_USERS = 16  # users whose histories are read together when scoring


@dataclass(frozen=True)
class SequentialConfig:
    """Settings of the sequential models."""

    architecture: Literal["transformer", "gru"] = "transformer"
    """network that reads the history"""
    embedding_dim: PositiveInt = 128
    """size of a movie's vector"""
    num_layers: PositiveInt = 4
    """number of layers"""
    num_heads: PositiveInt = 4
    """attention heads of the transformer"""
    max_length: PositiveInt = 200
    """ratings per user that a training step reads; lists are made from the latest ones, one fewer"""
    request_time: bool = True
    """use the time at which a list is requested, which a service knows"""
    dropout: Fraction = 0.3
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
    """The sum of the rated movies' cross-entropies; `forward` also computes its gradient, with the logits in the cache.

    User by user, as the logits of all would exhaust the memory. Autograd takes a quarter longer.
    """

    @staticmethod
    def forward(ctx, vectors: Tensor, hidden: Tensor, movies: Tensor, count: Tensor, unrated: Tensor) -> Tensor:
        """vectors [n_movies, D], hidden [B, L + 1, D], movies [B, L] of which user b has count[b] -> a scalar.

        unrated: indices of the movies that are no candidates
        """
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


class TransformerBlock(nn.Module):
    """One layer of the Transformer: attention and two linear layers, each with pre-norm and a residual connection."""

    def __init__(self, config: SequentialConfig):
        super().__init__()
        dim, self.num_heads = config.embedding_dim, config.num_heads
        self.dropout = nn.Dropout(config.dropout)
        self.before_attention, self.before_linear = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.to_qkv, self.from_heads = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.widen, self.narrow = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """x [B, L, D]; bias of each position's attention to each other, [B, heads, L, L] -> [B, L, D]."""
        q, k, v = self.to_qkv(self.before_attention(x)).unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        x = x + self.dropout(self.from_heads(attended.transpose(1, 2).flatten(2)))
        return x + self.dropout(self.narrow(F.gelu(self.widen(self.before_linear(x)))))


class RelativeBias(nn.Module):
    """Attention bias by the time and by the number of ratings between a rating and the request."""

    def __init__(self, config: SequentialConfig):
        super().__init__()
        self.shape = config.num_layers, config.num_heads
        n = config.num_layers * config.num_heads
        self.by_gap, self.by_distance = nn.Embedding(GAP_STEPS, n), nn.Embedding(config.max_length + 1, n)
        for part in (self.by_gap, self.by_distance):
            nn.init.zeros_(part.weight)

    def forward(self, gap: Tensor) -> Tensor:
        """gap: bins of the times to each position's request (rows) from each position's rating, int64 [B, L, L].

        Returns:
            the biases of each layer, -inf for later positions, [layers, B, heads, L, L]; all are looked up at once, as
            the gradient takes as long for one layer
        """
        place = torch.arange(gap.shape[1], device=gap.device)
        distance = place[:, None] - place
        bias = self.by_gap(gap) + self.by_distance(distance.clamp(min=0))
        bias = bias.masked_fill((distance < 0)[..., None], -torch.inf)
        return bias.permute(3, 0, 1, 2).unflatten(0, self.shape).transpose(1, 2).contiguous()


class Sequential(Model):
    """The causal Transformer or GRU of the formula above."""

    batching = UserBatches(size_in="users")

    def __init__(self, config: SequentialConfig, stats: DataStats, inputs: ModelInputs):
        super().__init__()
        stats = dataclasses.replace(stats, longest_gap=stats.longest_gap or longest_gap(inputs.training()))
        self.config, self.stats = config, stats
        self.notices = [] if stats.newest else ["The data has no times: the order of the file stands in for them."]
        self.register_buffer("features", inputs.features, persistent=False)
        self.register_buffer("rated", inputs.count > 0, persistent=False)  # movies with training ratings
        dim = config.embedding_dim
        self.ids = nn.Embedding(stats.n_movies, dim)
        self.from_features = nn.Linear(stats.n_features, dim, bias=False)
        self.start = nn.Parameter(torch.zeros(dim))
        self.rating = nn.Embedding(RATING_STEPS, dim)
        self.gap = nn.Embedding(GAP_STEPS, dim)
        self.position = nn.Embedding(config.max_length + 1, dim)  # the last one is read, but no loss depends on it
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
            self.layers = nn.ModuleList(TransformerBlock(config) for _ in range(config.num_layers))
            self.relative_bias = RelativeBias(config)
        self.norm = nn.LayerNorm(dim)

    def tables(self) -> dict[str, list[Tensor]]:
        """The parameters with one row per movie."""
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
        """At most `max_length` ratings of each user; of longer histories the latest or, half the time, a random run."""
        length, count = self.config.max_length, history.lengths()
        if history.movie.shape[1] <= length:
            return history
        latest = (count - length).clamp(min=0)
        draw = torch.rand(2, len(count), device=count.device)
        return history.window(torch.where(draw[0] < 0.5, (draw[1] * (latest + 1)).long(), latest), length)

    def read(self, vectors: Tensor, history: PaddedHistory) -> Tensor:
        """h before the first and after each rating, [B, L + 1, D]; of later ratings, it reads the next one's time."""
        share = ((history.rating - LOWEST) / (HIGHEST - LOWEST)).clamp(0, 1)
        rating = self.rating((share * (RATING_STEPS - 1)).round().long())
        time, request = self.times(history)
        gap = self.gap_steps(request - time if self.config.request_time else time.diff(dim=1, prepend=time[:, :1]))
        x = torch.cat([self.start.expand(len(rating), 1, -1), vectors[history.movie] + rating], 1) + self.gap(gap)
        x = self.dropout(x * self.config.embedding_dim**0.5 + self.position.weight[: x.shape[1]])
        if self.config.architecture == "gru":
            return self.norm(self.layers(x)[0])
        biases = self.relative_bias(self.gap_steps(request[:, :, None] - time[:, None]))
        for block, bias in zip(self.layers, biases, strict=True):
            x = block(x, bias)
        return self.norm(x)

    def gap_steps(self, seconds: Tensor) -> Tensor:
        """The bins of time gaps; gaps longer than training's longest are clipped to it."""
        seconds = seconds.clamp(min=0, max=self.stats.longest_gap)
        return (seconds.float().log1p() / LOG_STEP).long().clamp(max=GAP_STEPS - 1)

    def times(self, history: PaddedHistory) -> tuple[Tensor, Tensor]:
        """Before the first and after each rating: its time, and that of the request that follows, [B, L + 1] each.

        If request times are not used, both are the rating's time; before the first rating, both are the request's.
        """
        known = self.config.request_time
        rows, n = torch.arange(len(history.user), device=history.time.device), history.lengths()
        request = F.pad(history.time, (0, 1))
        request[rows, n] = history.request_time
        time = torch.cat([request[:, :1], history.time], 1)
        return time, request if known else time

    def loss(self, vectors: Tensor, hidden: Tensor, history: PaddedHistory) -> Tensor:
        """Mean cross-entropy of the rated movies, each among the movies that the user has not rated in this window.

        Movies without training ratings are no candidates: that they are not chosen says nothing about them.
        """
        unrated, count = (~self.rated).nonzero().squeeze(1), history.lengths()
        with torch.autocast(hidden.device.type, enabled=False):
            return NextMovieLoss.apply(vectors.float(), hidden.float(), history.movie, count, unrated) / count.sum()

    def score(self, history: PaddedHistory) -> Tensor:
        """How likely each movie is to be next for users with these histories, as logits: [B, n_movies]."""
        vectors = self.movie_vectors()
        return self.last_hidden(vectors, history) @ vectors.T

    def user_vectors(self, history: PaddedHistory) -> Tensor:
        """h of users after the last rating of these histories, [B, D]."""
        return self.last_hidden(self.movie_vectors(), history)

    def last_hidden(self, vectors: Tensor, history: PaddedHistory) -> Tensor:
        """`user_vectors` from the movies' vectors, [n_movies, D].

        Users with similar numbers of ratings are read together, a few at a time: less padding, and it fits the cache.
        """
        history = history.latest(self.config.max_length - 1)  # as many as training predicts its last rating from
        found, lengths = vectors.new_empty(len(history.user), vectors.shape[1]), history.lengths()
        for users in lengths.argsort().split(READ_USERS):
            hidden = self.read(vectors, history.rows(users))
            found[users] = hidden[torch.arange(len(users), device=hidden.device), lengths[users]]
        return found
