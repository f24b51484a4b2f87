#!/usr/bin/env python3
"""Time this repo against the plain way of doing the same work, both in one run, and print the ratios.

    python resultAnalyze/benchmark.py
    python resultAnalyze/benchmark.py --data dataset/ml-100k --only training

| row | plain way |
| --- | --- |
| reading | pandas' python engine on the ratings file |
| features | the same encoder, one title after the other |
| training | the original's model with a Dataset that builds one sample at a time, batch 256 |
| accuracy | that speed, for the epochs that the original's configuration needs to a validation RMSE of .9165 |
| ranking | Cornac's NeuMF on PyTorch, with the same sizes, batch and negatives |
| lists | a loop over users, each with the whole catalogue as one batch |
| start | `python -c "import torch"`, against one user's list from start to end |

The two sides take turns, and their median speeds are compared. Writes resultAnalyze/benchmark.json.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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

from Models.checkpoint import Catalogue, read_checkpoint, rebuild
from Models.dataLoader import RatingsData, load_data
from Models.recommend import Movie, make_list, recommend
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
PLAIN_USERS = 200
OUR_BATCH = 8192
GOAL = 0.9165  # validation RMSE on MovieLens 1M: the original's own figure
RANKING_SIZES = (32, 64, 32)  # numbers in an embedding, units of the layers
NEGATIVES = 4


@dataclass(frozen=True)
class Settings:
    data: Path = cli.data_flag()
    features: Path = cli.features_flag()
    only: Literal["all", "reading", "features", "training", "accuracy", "ranking", "lists", "start"] = flag(
        "all", "which row to measure"
    )
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
        ours, plain = (f"{speed:,.{0 if speed >= 10 else 3}f} {row.unit}/s" for speed in (row.ours, row.plain))
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
    return Row("training, original model", "ratings", ours, plain, target=10)


def train_ours(settings: Settings) -> float:
    """Ratings a second of `train.py --preset original` in its second epoch, with no validation in it."""
    return second_epoch(settings, "--preset", "original", "--batch-size", OUR_BATCH)


def second_epoch(settings: Settings, *flags: object) -> float:
    """Training ratings a second in the second epoch of train.py with these flags, with no validation in it."""
    with trained(settings, *flags, "--ratios", 0.8, 0, 0.2, "--epochs", 2) as run:
        return read_json(run / TEST_METRICS)["train_rows"] / float(read_table(run / "metrics.csv")[1]["seconds"])


@contextmanager
def trained(settings: Settings, *flags: object) -> Iterator[Path]:
    """The run folder of train.py with these flags, for as long as it is looked at."""
    with tempfile.TemporaryDirectory() as scratch:
        run = Path(scratch) / "run"
        places = ["--data", settings.data, "--features", settings.features, "--run", run, "--device", "cpu"]
        command = [sys.executable, ROOT / "train.py", *places, *flags]
        subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL)
        yield run


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


# --- accuracy ------------------------------------------------------------------------------------


def measure_accuracy(settings: Settings) -> Row:
    """Both start from random weights; the plain side's epochs are counted, and its speed measured on a part of one."""
    data = load_data(settings.data, settings.features)
    with trained(settings, "--preset", "original", "--epochs", 8) as run:
        n_ratings, epochs = read_json(run / TEST_METRICS)["train_rows"], len(until_goal(run))
    ours, plain = in_turn(settings.repeats, lambda: reach_goal(settings), lambda: train_plainly(data))
    return Row(f"training to RMSE {GOAL}", "trainings", ours, plain / (epochs * n_ratings), target=50)


def reach_goal(settings: Settings) -> float:
    """How often in a second `train.py --preset ncf` would reach the goal, its validations included."""
    with trained(settings, "--preset", "ncf", "--batch-size", OUR_BATCH, "--lr", 0.01, "--epochs", 8) as run:
        return 1 / sum(float(row["seconds"]) for row in until_goal(run))


def until_goal(run: Path) -> list[dict[str, str]]:
    """The epochs of a run up to the first that reaches the goal.

    Raises:
        UserError: none does.
    """
    epochs = read_table(run / "metrics.csv")
    for k, row in enumerate(epochs, start=1):
        if float(row["val_rmse"]) <= GOAL:
            return epochs[:k]
    raise UserError(f"No epoch reached a validation RMSE of {GOAL}: that goal is MovieLens 1M's.")


# --- ranking -------------------------------------------------------------------------------------


def measure_ranking(settings: Settings) -> Row:
    data = load_data(settings.data, settings.features)
    embedding, first, second = RANKING_SIZES
    ours, plain = in_turn(
        settings.repeats,
        lambda: second_epoch(
            settings,
            *("--objective", "ranking", "--relevant", 0, "--embedding", embedding, "--hidden", first, second),
            *("--negatives", NEGATIVES, "--batch-size", OUR_BATCH),
        ),
        lambda: train_neumf(data),
    )
    return Row("training to rank", "ratings", ours, plain, target=3)


def train_neumf(data: RatingsData) -> float:
    """Positive ratings a second of one epoch of Cornac's NeuMF."""
    from cornac.data import Dataset as CornacDataset
    from cornac.models import NeuMF

    embedding, first, second = RANKING_SIZES
    rows = np.random.default_rng(0).permutation(len(data.rating))[:PLAIN_RATINGS]
    columns = (data.user[rows].tolist(), data.movie[rows].tolist(), data.rating[rows].tolist())
    ratings = CornacDataset.build(list(zip(*columns, strict=True)))
    model = NeuMF(
        num_factors=embedding,
        layers=(2 * embedding, first, second),
        num_neg=NEGATIVES,
        batch_size=OUR_BATCH,
        num_epochs=1,
        backend="pytorch",
        verbose=False,
    )
    return speed(len(rows), lambda: model.fit(ratings))


# --- lists ---------------------------------------------------------------------------------------


def measure_lists(settings: Settings) -> Row:
    with trained(settings, "--preset", "ncf", "--epochs", 1) as run:
        model, catalogue = rebuild(read_checkpoint(run / "best.pt"), torch.device("cpu"))
    everyone = range(len(catalogue.user_ids))
    some = everyone[:PLAIN_USERS]
    by_us, by_loop = recommend(model, catalogue, some, 10), list_plainly(model, catalogue, some)
    differ = sum([m.id for m in a.movies] != [m.id for m in b] for a, b in zip(by_us, by_loop, strict=True))
    print(f"lists that differ between the two sides: {differ} of {len(some)}")
    ours, plain = in_turn(
        settings.repeats,
        lambda: speed(len(everyone), lambda: list(recommend(model, catalogue, everyone, 10))),
        lambda: speed(len(some), lambda: list_plainly(model, catalogue, some)),
    )
    return Row("ten movies for every user", "users", ours, plain, target=5)


@torch.inference_mode()
def list_plainly(model: nn.Module, catalogue: Catalogue, users: Sequence[int]) -> list[list[Movie]]:
    """The same lists user by user."""
    lists = []
    for user in users:
        movies = torch.arange(len(catalogue.movie_ids))
        stars = model({"user": torch.full_like(movies, user), "movie": movies}).stars
        stars[catalogue.seen(user)] = -torch.inf
        best = stars.sort(descending=True, stable=True).indices[:10]
        shown = stars[best].clamp(model.sizes.low, model.sizes.high)
        lists.append(make_list(catalogue, best.tolist(), {"stars": shown.tolist()}))
    return lists


# --- start ---------------------------------------------------------------------------------------


def measure_start(settings: Settings) -> Row:
    """The target is half of the speed: at most twice the time."""
    with trained(settings, "--preset", "ncf", "--epochs", 1) as run:
        script = [sys.executable, ROOT / "generate_recommendation.py", "--run", run]
        ours, plain = in_turn(
            settings.repeats,
            lambda: speed(1, lambda: subprocess.run(script, check=True, capture_output=True)),
            lambda: speed(1, lambda: subprocess.run([sys.executable, "-c", "import torch"], check=True)),
        )
    return Row("one list, start to end", "runs", ours, plain, target=0.5)


ROWS = {
    "reading": measure_reading,
    "features": measure_features,
    "training": measure_training,
    "accuracy": measure_accuracy,
    "ranking": measure_ranking,
    "lists": measure_lists,
    "start": measure_start,
}

if __name__ == "__main__":
    cli.run(main)
