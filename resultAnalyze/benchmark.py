#!/usr/bin/env python3
"""Time this repo against the plain way of doing the same work, both in one run, and print the ratios.

    python resultAnalyze/benchmark.py
    python resultAnalyze/benchmark.py --data dataset/ml-100k --only training

| row | plain way |
| --- | --- |
| reading | pandas' python engine on the ratings file |
| features | the same encoder, one title after the other |
| training | the original's model with a Dataset that builds one sample at a time, batch 256 |

The two sides take turns, and their median speeds are compared. Writes resultAnalyze/benchmark.json.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Literal

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from Models.dataLoader import RatingsData, load_data
from Models.Recommender import ModelConfig
from utils import cli
from utils.cli import flag, positive
from utils.encoder import DEFAULT_ENCODER, Encoder, find_encoder
from utils.files import ROOT, UserError, read_json, write_json
from utils.ratings import read_ratings
from utils.readers import read_dataset
from utils.runs import TEST_METRICS, read_table

PLAIN_TITLES = 300  # the plain sides do a part of the work, enough to know their speed
PLAIN_RATINGS = 50_000
OUR_BATCH = 8192


@dataclass(frozen=True)
class Settings:
    data: Path = cli.data_flag()
    features: Path = cli.features_flag()
    only: Literal["all", "reading", "features", "training"] = flag("all", "which row to measure")
    repeats: int = flag(5, "how often each side runs", type=positive)
    output: Path = flag(ROOT / "resultAnalyze" / "benchmark.json", "where the figures go", metavar="FILE")


@dataclass(frozen=True)
class Row:
    """A finished comparison; speeds in `unit` a second, the medians of all repeats."""

    work: str
    unit: str
    ours: float
    plain: float
    target: float

    @property
    def ratio(self) -> float:
        return self.ours / self.plain


def main() -> None:
    settings = cli.parse(Settings, __doc__, None)
    measured = []
    for name, measure in ROWS.items():
        if settings.only in ("all", name):
            print(f"Measuring {name} ...", flush=True)
            measured.append(measure(settings))
    print(f"\n| work | ours | plain | ratio | target |\n{'| --- ' * 5}|")
    for row in measured:
        verdict = "" if row.ratio >= row.target else " below"
        ours, plain = (f"{speed:,.0f} {row.unit}/s" for speed in (row.ours, row.plain))
        print(f"| {row.work} | {ours} | {plain} | {row.ratio:.1f}x | {row.target:g}x{verdict} |")
    machine = {"torch": torch.__version__, "threads": torch.get_num_threads(), "repeats": settings.repeats}
    write_json(settings.output, machine | {"rows": [asdict(row) | {"ratio": row.ratio} for row in measured]})


def in_turn(repeats: int, ours: Callable[[], float], plain: Callable[[], float]) -> tuple[float, float]:
    """Run two measurements in turn; their median speeds."""
    speeds = [(ours(), plain()) for _ in range(repeats)]
    return median(a for a, _ in speeds), median(b for _, b in speeds)


def speed(amount: int, work: Callable[[], object]) -> float:
    """How much of `amount` is done in a second."""
    started = time.perf_counter()
    work()
    return amount / (time.perf_counter() - started)


# --- reading -------------------------------------------------------------------------------------


def measure_reading(settings: Settings) -> Row:
    separators = {"ratings.dat": "::", "u.data": "\t", "ratings.csv": ","}
    path = next((settings.data / name for name in separators if (settings.data / name).is_file()), None)
    if path is None:
        raise UserError(f"{settings.data} has none of {', '.join(separators)}: name another folder with --data.")
    separator = separators[path.name]
    n = len(read_ratings(path))
    ours, plain = in_turn(
        settings.repeats,
        lambda: speed(n, lambda: read_ratings(path)),
        lambda: speed(n, lambda: pd.read_csv(path, sep=separator, engine="python", header=None)),
    )
    return Row(f"reading {path.name}", "ratings", ours, plain, target=15)


# --- features ------------------------------------------------------------------------------------


def measure_features(settings: Settings) -> Row:
    titles = read_dataset(settings.data).movies["title"].tolist()
    some = np.random.default_rng(0).choice(titles, min(PLAIN_TITLES, len(titles)), replace=False).tolist()
    encoder = Encoder.load(find_encoder(DEFAULT_ENCODER)[0], torch.device("cpu"))
    difference = np.abs(encoder.encode(some) - encode_plainly(encoder, some)).max()  # warms up both sides, too
    print(f"largest difference between the two sides: {difference:.1e}")
    ours, plain = in_turn(
        settings.repeats,
        lambda: speed(len(titles), lambda: encoder.encode(titles)),
        lambda: speed(len(some), lambda: encode_plainly(encoder, some)),
    )
    return Row("title vectors", "titles", ours, plain, target=20)


@torch.inference_mode()
def encode_plainly(encoder: Encoder, titles: list[str]) -> np.ndarray:
    """Mean pooling of one title after the other: float32 [n_titles, hidden size]."""
    vectors = []
    for title in titles:
        states = encoder.model(**encoder.tokenizer(title, return_tensors="pt")).last_hidden_state  # [1, T, H]
        vectors.append(states.mean(1)[0].numpy())
    return np.stack(vectors)


# --- training ------------------------------------------------------------------------------------


def measure_training(settings: Settings) -> Row:
    data = load_data(settings.data, settings.features)
    ours, plain = in_turn(settings.repeats, lambda: train_ours(settings), lambda: train_plainly(data))
    return Row("training, original model", "ratings", ours, plain, target=8)


def train_ours(settings: Settings) -> float:
    """Ratings a second of `train.py --preset original` in its second epoch, with no validation in it."""
    with tempfile.TemporaryDirectory() as scratch:
        run = Path(scratch) / "run"
        places = ["--data", settings.data, "--features", settings.features, "--run", run, "--device", "cpu"]
        shape = ["--preset", "original", "--batch-size", OUR_BATCH, "--ratios", 0.8, 0, 0.2, "--epochs", 2]
        command = [sys.executable, ROOT / "train.py", *places, *shape]
        subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL)
        n_ratings = read_json(run / TEST_METRICS)["train_rows"]
        return n_ratings / float(read_table(run / "metrics.csv")[1]["seconds"])


class PlainDataset(Dataset):
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


class PlainRecommender(nn.Module):
    """The original's model written the plain way: everything concatenated for each rating."""

    def __init__(self, config: ModelConfig, n_users: int, n_movies: int, n_features: int):
        super().__init__()
        self.user = nn.Embedding(n_users, config.embedding)
        self.movie = nn.Embedding(n_movies, config.embedding)
        first, second = config.hidden
        self.mlp = nn.Sequential(
            *(nn.Linear(2 * config.embedding + n_features, first), nn.ReLU(), nn.Dropout(config.dropout)),
            *(nn.Linear(first, second), nn.ReLU(), nn.Linear(second, 1), nn.Sigmoid()),
        )

    def forward(self, user: Tensor, movie: Tensor, features: Tensor) -> Tensor:
        return self.mlp(torch.cat([self.user(user), self.movie(movie), features], 1)).squeeze(1)


def train_plainly(data: RatingsData) -> float:
    """Ratings a second of the plain loop."""
    config = ModelConfig(embedding=32, hidden=(128, 64), dropout=0.2)
    model = PlainRecommender(config, len(data.user_ids), len(data.movies), data.features.vectors.shape[1])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    rows = np.random.default_rng(0).permutation(len(data.rating))[:PLAIN_RATINGS]
    loader = DataLoader(PlainDataset(data, rows), batch_size=256, shuffle=True)

    def work() -> None:
        for user, movie, features, rating in loader:
            loss = nn.functional.mse_loss(model(user, movie, features), rating)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return speed(len(rows), work)


ROWS = {"reading": measure_reading, "features": measure_features, "training": measure_training}

if __name__ == "__main__":
    cli.run(main)
