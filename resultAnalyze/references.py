"""The reference implementations of benchmark.py: the same work as done by tutorials and other libraries."""

import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from Models.checkpoint import SavedModel
from Models.Original import OriginalConfig
from Models.ratings_data import RatingsData
from utils.encoder import Encoder

REFERENCE_RATINGS = 50_000
RANKING_SIZES = (32, 64, 32)
NEGATIVES = 4
LARGE_BATCH = 8192


def speed(amount: int, work: Callable[[], object]) -> float:
    """How much of `amount` is done per second."""
    started = time.perf_counter()
    work()
    return amount / (time.perf_counter() - started)


@torch.inference_mode()
def reference_encode(encoder: Encoder, titles: list[str]) -> np.ndarray:
    """Mean-pooled vectors of one title after the other: float32 [n_titles, hidden size]."""
    vectors = []
    for title in titles:
        states = encoder.model(**encoder.tokenizer(title, return_tensors="pt")).last_hidden_state  # [1, T, H]
        vectors.append(states.mean(1)[0].numpy())
    return np.stack(vectors)


class ReferenceDataset(Dataset):
    """One sample at a time, as tutorials do it."""

    def __init__(self, data: RatingsData, rows: np.ndarray):
        self.data, self.rows = data, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        row = self.rows[i]
        user, movie = self.data.user[row], self.data.movie[row]
        features = torch.tensor(self.data.features.vectors[movie])
        return torch.tensor(user), torch.tensor(movie), features, torch.tensor(self.data.rating[row] / 5)


class ReferenceNCF(nn.Module):
    """The original's model as tutorials write it: everything concatenated for each rating."""

    def __init__(self, config: OriginalConfig, n_users: int, n_movies: int, n_features: int):
        super().__init__()
        self.user = nn.Embedding(n_users, config.embedding_dim)
        self.movie = nn.Embedding(n_movies, config.embedding_dim)
        first, second = config.hidden_dims
        self.mlp = nn.Sequential(
            *(nn.Linear(2 * config.embedding_dim + n_features, first), nn.ReLU(), nn.Dropout(config.dropout)),
            *(nn.Linear(first, second), nn.ReLU(), nn.Linear(second, 1), nn.Sigmoid()),
        )

    def forward(self, user: Tensor, movie: Tensor, features: Tensor) -> Tensor:
        return self.mlp(torch.cat([self.user(user), self.movie(movie), features], 1)).squeeze(1)


def reference_train(data: RatingsData) -> float:
    """Ratings per second of a loop over single samples."""
    model = ReferenceNCF(OriginalConfig(), len(data.user_ids), len(data.movies), data.features.vectors.shape[1])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    rows = np.random.default_rng(0).permutation(len(data.rating))[:REFERENCE_RATINGS]
    loader = DataLoader(ReferenceDataset(data, rows), batch_size=256, shuffle=True)

    def work() -> None:
        for user, movie, features, rating in loader:
            loss = nn.functional.mse_loss(model(user, movie, features), rating)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return speed(len(rows), work)


def reference_neumf(data: RatingsData) -> float:
    """Positive ratings per second of one epoch of Cornac's NeuMF."""
    from cornac.data import Dataset as CornacDataset
    from cornac.models import NeuMF

    embedding, first, second = RANKING_SIZES
    rows = np.random.default_rng(0).permutation(len(data.rating))[:REFERENCE_RATINGS]
    columns = (data.user[rows].tolist(), data.movie[rows].tolist(), data.rating[rows].tolist())
    ratings = CornacDataset.build(list(zip(*columns, strict=True)))
    model = NeuMF(
        num_factors=embedding,
        layers=(2 * embedding, first, second),
        num_neg=NEGATIVES,
        batch_size=LARGE_BATCH,
        num_epochs=1,
        backend="pytorch",
        verbose=False,
    )
    return speed(len(rows), lambda: model.fit(ratings))


@torch.inference_mode()
def reference_list(saved: SavedModel, users: Sequence[int]) -> list[list]:
    """The ids of the same ten movies, user by user, each with the whole catalogue as one batch."""
    lists, model, history = [], saved.model, saved.ratings.history
    for user in users:
        movies = torch.arange(len(saved.ids.movie_ids))
        prediction = model.predict({"user": torch.full_like(movies, user), "movie": movies})
        prediction[history.movie[history.offsets[user] : history.offsets[user + 1]]] = -torch.inf
        best = prediction.sort(descending=True, stable=True).indices[:10]
        lists.append([saved.ids.movie_ids[i] for i in best.tolist()])
    return lists
