"""The multimodal NCF model: user, movie, title and genres into biases, a dot product and an MLP."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from Models.Dataset import ROWS, Batch, Output
from Models.histories import Past
from Models.inputs import DataSizes, FeatureConfig, Known, prepared
from utils.cli import flag, not_negative, positive, share
from utils.files import UserError

MOVIES_TOGETHER = 4096  # whose MLP is computed at once when all are scored
NEW_USER_STEPS = 200  # of Adam, for the embedding of a user who was not in training

# What one side, users or movies, brings to a prediction; each part has one row for each user or movie.
Side = dict[str, Tensor]


@dataclass(frozen=True)
class ModelConfig(FeatureConfig):
    """What the model is made of; the flags that are on or off switch its inputs and blocks."""

    embedding: int = flag(64, "numbers in a user or movie embedding", type=positive)
    hidden: tuple[int, int] = flag((128, 64), "units of the MLP's two layers", metavar="N", type=positive)
    dropout: float = flag(0.5, "share of first-layer units dropped in training", type=share)
    biases: bool = flag(True, "mean rating plus what is usual for the user and the movie")
    gmf: bool = flag(True, "element-wise product of user and movie factors beside the MLP")
    ids: bool = flag(True, "what a movie's own ratings teach: its embedding and bias")
    sigmoid: bool = flag(False, "squeeze the output into 0 to the highest rating")
    l2: float = flag(0.06, "penalty on the factors, once for each rating, in squared stars", type=not_negative)
    l2_bias: float = flag(0.005, "the same for the biases", type=not_negative)
    negatives: int = flag(32, "with --objective ranking: movies drawn beside each rated one", type=positive)


class Recommender(nn.Module):
    """Predicts stars; the MLP and the product are those of He et al. 2017, "Neural Collaborative Filtering".

        stars(u, i) = mean + b_u + b_i + p_u · z_i + MLP([p_u, q_i, f_i])
        z_i = q_i + W f_i        b_i = c_i + w · f_i        f_i = [title vector, genres]

    Blocks that the configuration switches off fall away; the original is high * sigmoid(MLP([p_u, q_i, f_i])).
    With the objective "ranking" the same number is a score: a movie that the user rated competes in a softmax with
    movies drawn at random from those that the user has not rated (sampled softmax).
    The MLP's first layer is linear in its three inputs, so a movie's share of it, where most of the work lies,
    is computed once for each movie of a batch and not once for each rating.

    Args:
        config, sizes: as above
        known: of which the features are used, and by the ranking objective the ratings; left out to load a state later

    Raises:
        UserError: more negatives are wanted than a user has unrated movies.
    """

    batching = ROWS

    def __init__(self, config: ModelConfig, sizes: DataSizes, known: Known | None = None):
        super().__init__()
        self.config, self.sizes = config, sizes
        n_features = sizes.n_title + sizes.n_genres
        features = known.features if known else torch.zeros(sizes.n_movies, n_features)
        self.register_buffer("features", prepared(features, config, sizes))
        if known and config.objective == "ranking":
            self.register_buffer("rated", (known.user * sizes.n_movies + known.movie).sort().values, persistent=False)
            left = sizes.n_movies - int(torch.bincount(known.user).max())
            if left < config.negatives:
                raise UserError(f"A user has only {left} unrated movies: lower --negatives.")
        self.user = nn.Embedding(sizes.n_users, config.embedding)
        self.movie = nn.Embedding(sizes.n_movies, config.embedding)
        self.first = nn.Linear(2 * config.embedding + n_features, config.hidden[0])
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Sequential(nn.Linear(*config.hidden), nn.ReLU(inplace=True), nn.Linear(config.hidden[1], 1))
        if config.gmf:
            self.feature_factors = nn.Linear(n_features, config.embedding, bias=False)
            nn.init.zeros_(self.feature_factors.weight)
            for embedding in (self.user, self.movie):  # small: predictions start at the biases
                nn.init.normal_(embedding.weight, std=0.01)
        if config.biases:
            self.user_bias = nn.Embedding(sizes.n_users, 1)
            self.movie_bias = nn.Embedding(sizes.n_movies, 1)
            self.feature_bias = nn.Linear(n_features, 1, bias=False)
            for part in (self.user_bias, self.movie_bias, self.feature_bias):
                nn.init.zeros_(part.weight)
        if not config.ids:
            for part in (self.movie, *([self.movie_bias] if config.biases else [])):
                nn.init.zeros_(part.weight).requires_grad_(False)

    def forward(self, batch: Batch) -> Output:
        """Predicted stars and, in training, the loss for each rating.

        The loss is the mean squared error on rating / high, as in the original, and the penalty on that scale.
        """
        if self.training and self.config.objective == "ranking":
            return Output(None, self.ranking_loss(batch["user"], batch["movie"]), len(batch["user"]))
        movies, place = torch.unique(batch["movie"], return_inverse=True)
        user = self.user_side(batch["user"])
        # index_select, unlike part[place], has a gradient that is the same each time, and fast
        movie = {name: part.index_select(0, place) for name, part in self.movie_side(movies).items()}
        stars = self.combine(user, movie)
        if not self.training:
            return Output(stars)
        penalty = (user["penalty"] + movie["penalty"]).mean()
        high = self.sizes.high
        loss = ((stars - batch["rating"]) / high).square().mean() + penalty / high**2
        return Output(stars, loss, len(stars))

    def ranking_loss(self, users: Tensor, rated: Tensor) -> Tensor:
        """Mean cross-entropy of each user's rated movie among negatives, and the penalty on both, a scalar."""
        negatives = draw_negatives(users, self.rated, self.sizes.n_movies, self.config.negatives)
        movies, place = torch.unique(torch.cat([rated[:, None], negatives], 1), return_inverse=True)  # [B, 1 + n]
        user = {name: part[:, None] for name, part in self.user_side(users).items()}
        sides = self.movie_side(movies)
        movie = {name: part.index_select(0, place.flatten()).unflatten(0, place.shape) for name, part in sides.items()}
        scores = self.combine(user, movie)
        return -F.log_softmax(scores, 1)[:, 0].mean() + (user["penalty"] + movie["penalty"]).mean()

    def user_side(self, users: Tensor) -> Side:
        """The parts of the users at these positions, [N]."""
        return self.side_of(self.user(users), self.user_bias(users).squeeze(1) if self.config.biases else None)

    def side_of(self, embedding: Tensor, bias: Tensor | None) -> Side:
        """The parts of users with these embeddings, [N, D], and biases, [N]."""
        weight = self.first.weight[:, : self.config.embedding]
        side = {"hidden": F.linear(embedding, weight, self.first.bias)}  # [N, H]
        side["penalty"] = self.config.l2 * embedding.square().sum(1)  # [N]
        if self.config.gmf:
            side["factors"] = embedding
        if self.config.biases:
            side["bias"] = bias
            side["penalty"] = side["penalty"] + self.config.l2_bias * side["bias"].square()
        return side

    def movie_side(self, movies: Tensor) -> Side:
        """The parts of the movies at these positions, [N]."""
        embedding, features = self.movie(movies), self.features[movies]  # [N, D], [N, F]
        weight = self.first.weight[:, self.config.embedding :]
        side = {"hidden": F.linear(torch.cat([embedding, features], 1), weight)}  # [N, H]
        side["penalty"] = self.config.l2 * embedding.square().sum(1)  # [N]
        if self.config.gmf:
            from_features = self.feature_factors(features)
            side["factors"] = embedding + from_features
            side["penalty"] = side["penalty"] + self.config.l2 * from_features.square().sum(1)
        if self.config.biases:
            own, from_features = self.movie_bias(movies).squeeze(1), self.feature_bias(features).squeeze(1)
            side["bias"] = own + from_features
            side["penalty"] = side["penalty"] + self.config.l2_bias * (own.square() + from_features.square())
        return side

    def combine(self, user: Side, movie: Side) -> Tensor:
        """Predicted stars of user and movie sides that broadcast against each other."""
        stars = self.head(self.dropout((user["hidden"] + movie["hidden"]).relu_())).squeeze(-1)
        if self.config.gmf:
            stars = stars + (user["factors"] * movie["factors"]).sum(-1)
        if self.config.biases:
            stars = stars + self.sizes.mean_rating + user["bias"] + movie["bias"]
        return self.sizes.high * torch.sigmoid(stars) if self.config.sigmoid else stars

    def score(self, users: Tensor) -> Tensor:
        """Predicted stars, not clipped to the scale, of every movie for the users at these positions: [N, n_movies]."""
        return self.score_side(self.user_side(users))

    def score_past(self, past: Past) -> Tensor:
        """The same for new users with these ratings, whose embeddings alone are learned here: [B, n_movies]."""
        device = past.movie.device
        with torch.inference_mode(False), torch.enable_grad():
            mine = [torch.zeros(len(past.movie), self.config.embedding, device=device, requires_grad=True)]
            mine += [torch.zeros(len(past.movie), device=device, requires_grad=True)] * self.config.biases
            optimizer = torch.optim.Adam(mine, lr=0.05)
            for _ in range(NEW_USER_STEPS):
                user = self.side_of(mine[0], mine[1] if self.config.biases else None)
                scores, real = self.score_side(user), past.real.clone()
                if self.config.objective == "rating":
                    loss = ((scores.gather(1, past.movie) - past.stars).square() * real).sum()
                else:
                    loss = -(scores.log_softmax(1).gather(1, past.movie) * real).sum()
                loss = loss + (user["penalty"] * past.count()).sum()
                for part, gradient in zip(mine, torch.autograd.grad(loss, mine, allow_unused=True), strict=True):
                    part.grad = gradient
                optimizer.step()
        return self.score_side(self.side_of(mine[0].detach(), mine[1].detach() if self.config.biases else None))

    def movie_vectors(self) -> Tensor:
        """z of every movie, [n_movies, D]; without the product, the embeddings."""
        side = self.movie_side(torch.arange(self.sizes.n_movies, device=self.movie.weight.device))
        return side["factors"] if self.config.gmf else self.movie.weight

    def score_side(self, user: Side) -> Tensor:
        """Scores of every movie for users of these parts, [N, n_movies]."""
        movie = self.movie_side(torch.arange(self.sizes.n_movies, device=self.movie.weight.device))
        # block by block: the MLP's units of many users and all movies would fill the memory, these stay in the cache
        rows = ({name: part[i] for name, part in user.items()} for i in range(len(user["hidden"])))
        blocks = [
            {name: part[i : i + MOVIES_TOGETHER] for name, part in movie.items()}
            for i in range(0, self.sizes.n_movies, MOVIES_TOGETHER)
        ]
        return torch.stack([torch.cat([self.combine(row, block) for block in blocks]) for row in rows])


def draw_negatives(users: Tensor, rated: Tensor, n_movies: int, n: int) -> Tensor:
    """For each user `n` different movies, uniformly from those that the user has not rated: [B, n].

    Args:
        users: positions, [B]; each with at least n unrated movies
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
