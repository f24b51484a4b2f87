#!/usr/bin/env python3
"""Time this repo against the plain way of doing the same work, both in one run, and print the ratios.

    python resultAnalyze/benchmark.py
    python resultAnalyze/benchmark.py --data dataset/ml-100k --only training

| row | plain way |
| --- | --- |
| reading | pandas' python engine on the ratings file |
| features | the same encoder, one title after the other |
| library | sentence_transformers' encode(), where it is installed |
| training | the original's model with a Dataset that builds one sample at a time, batch 256 |
| accuracy | that speed, for the epochs that the original's configuration needs to a validation RMSE of .9165 |
| ranking | Cornac's NeuMF on PyTorch, with the same sizes, batch and negatives |
| lists | a loop over users, each with the whole catalogue as one batch |
| start | `python -c "import torch"`, against one user's list from start to end |

The two sides take turns, and their median speeds are compared. Beside them stands the limit: the speed that this
machine would reach if nothing but the arithmetic of the row cost time, at the rate of its matrix products (for
reading: if nothing but getting the file's bytes did; for start: importing torch). Titles are doubled for training, so
that with the default encoder they are as wide as the original's. Writes resultAnalyze/benchmark.json.
"""

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Literal

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import numpy as np
import pandas as pd
import torch

from Models.checkpoint import read_checkpoint, rebuild
from Models.dataLoader import RatingsData, load_data
from Models.recommend import recommend
from resultAnalyze.plain import (
    LARGE_BATCH,
    NEGATIVES,
    RANKING_SIZES,
    encode_plainly,
    list_plainly,
    speed,
    train_neumf,
    train_plainly,
)
from utils import cli
from utils.cli import flag, positive
from utils.encoder import DEFAULT_ENCODER, Encoder, find_encoder
from utils.features import read_features, write_features
from utils.files import ROOT, UserError, read_json, write_json
from utils.ratings import read_ratings
from utils.readers import read_dataset
from utils.runs import TEST_METRICS, read_table

PLAIN_TITLES = 300  # the plain sides do a part of the work, enough to know their speed
PLAIN_USERS = 200
GOAL = 0.9165  # validation RMSE on MovieLens 1M: the original's own figure
ORIGINAL = (32, 128, 64)  # numbers in an embedding, units of the layers
QUICK = (16, 32, 16)  # the same of an NCF that is soon good enough


@dataclass(frozen=True)
class Settings:
    data: Path = cli.data_flag()
    features: Path = cli.features_flag()
    only: Literal["all", "reading", "features", "library", "training", "accuracy", "ranking", "lists", "start"] = flag(
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
    limit: float
    target: float

    @property
    def ratio(self) -> float:
        return self.ours / self.plain


def main() -> None:
    settings = cli.parse(Settings, __doc__, None)
    rows = []
    for name, measure in ROWS.items():
        if settings.only in ("all", name):
            print(f"Measuring {name} ...", flush=True)
            rows.append(measure(settings))
    rows = [row for row in rows if row]
    print(f"\n| work | ours | plain | ratio | target | limit | ours, of it |\n{'| --- ' * 7}|")
    for row in rows:
        speeds = [f"{v:,.{0 if v >= 10 else 3}f} {row.unit}/s" for v in (row.ours, row.plain, row.limit)]
        verdict = f"{row.target:g}x" + ", below" * (row.ratio < row.target)
        print(
            f"| {row.work} | {speeds[0]} | {speeds[1]} | {row.ratio:.1f}x | {verdict} | {speeds[2]} | "
            f"{row.ours / row.limit:.0%} |"
        )
    machine = {"torch": torch.__version__, "threads": torch.get_num_threads(), "repeats": settings.repeats}
    machine |= {"flop_a_second": flop_rate()}
    write_json(settings.output, machine | {"rows": [asdict(row) | {"ratio": row.ratio} for row in rows]})


def in_turn(repeats: int, ours: Callable[[], float], plain: Callable[[], float]) -> tuple[float, float]:
    """Run two measurements in turn; their median speeds."""
    speeds = [(ours(), plain()) for _ in range(repeats)]
    return median(a for a, _ in speeds), median(b for _, b in speeds)


# --- limits --------------------------------------------------------------------------------------


def flop_rate() -> float:
    """Floating-point operations a second in this machine's matrix products, float32."""
    a = torch.randn(1024, 1024)
    return median(speed(2 * 1024**3, lambda: a @ a) for _ in range(20))


def training_limit(data: RatingsData, sizes: tuple[int, int, int], pairs: int = 1) -> float:
    """Ratings a second if only the NCF's matrix products cost time, each forward and twice back.

    A user's and a movie's share of the first layer is computed once a rating and once a movie of the batch.
    """
    embedding, first, second = sizes
    movies = len(np.unique(np.random.default_rng(0).choice(data.movie, LARGE_BATCH)))
    a_movie = (embedding + data.features.vectors.shape[1]) * first
    a_rating = embedding * first + pairs * (first * second + second) + movies / LARGE_BATCH * a_movie
    return flop_rate() / (6 * a_rating)


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
    limit = median(speed(n, path.read_bytes) for _ in range(5))
    return Row(f"reading {path.name}", "ratings", ours, plain, limit, target=15)


# --- features ------------------------------------------------------------------------------------


def measure_features(settings: Settings) -> Row:
    titles, encoder = titles_and_encoder(settings)
    some = np.random.default_rng(0).choice(titles, min(PLAIN_TITLES, len(titles)), replace=False).tolist()
    difference = np.abs(encoder.encode(some) - encode_plainly(encoder, some)).max()  # warms up both sides, too
    print(f"largest difference between the two sides: {difference:.1e}")
    ours, plain = in_turn(
        settings.repeats,
        lambda: speed(len(titles), lambda: encoder.encode(titles)),
        lambda: speed(len(some), lambda: encode_plainly(encoder, some)),
    )
    return Row("title vectors", "titles", ours, plain, encoding_limit(titles, encoder), target=20)


def measure_library(settings: Settings) -> Row | None:
    """None where the library is not installed."""
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError:
        print("sentence_transformers is not installed: without this row.")
        return None
    titles, encoder = titles_and_encoder(settings)
    library = SentenceTransformer(str(find_encoder(DEFAULT_ENCODER)[0]), device="cpu")
    encoder.encode(titles[:PLAIN_TITLES]), library.encode(titles[:PLAIN_TITLES])
    ours, plain = in_turn(
        settings.repeats,
        lambda: speed(len(titles), lambda: encoder.encode(titles)),
        lambda: speed(len(titles), lambda: library.encode(titles, show_progress_bar=False)),
    )
    return Row("title vectors, sentence_transformers", "titles", ours, plain, encoding_limit(titles, encoder), target=1)


def titles_and_encoder(settings: Settings) -> tuple[list[str], Encoder]:
    titles = read_dataset(settings.data).movies["title"].tolist()
    return titles, Encoder.load(find_encoder(DEFAULT_ENCODER)[0], torch.device("cpu"))


def encoding_limit(titles: list[str], encoder: Encoder) -> float:
    """Titles a second if only the products with the layers' weights cost time."""
    tokens = sum(len(words) for words in encoder.tokenizer(titles)["input_ids"])
    weights = sum(parameter.numel() for parameter in encoder.model.encoder.parameters())
    return len(titles) * flop_rate() / (2 * weights * tokens)


# --- training ------------------------------------------------------------------------------------


def measure_training(settings: Settings) -> Row:
    with wide_features(settings) as wide:
        data = load_data(settings.data, wide.features)
        flags = "--preset", "original", "--batch-size", LARGE_BATCH
        ours, plain = in_turn(settings.repeats, lambda: second_epoch(wide, *flags), lambda: train_plainly(data))
    return Row("training, original model", "ratings", ours, plain, training_limit(data, ORIGINAL), target=10)


@contextmanager
def wide_features(settings: Settings) -> Iterator[Settings]:
    """Settings with features whose title vectors are doubled, for as long as the block runs."""
    movies = read_dataset(settings.data).movies
    features = read_features(settings.features, movies)
    titles = features.vectors[:, : features.info.bert_dim]
    rows = dict(zip(movies["movie"].tolist(), np.hstack([titles, features.vectors]), strict=True))
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / settings.features.name
        write_features(path, rows, replace(features.info, bert_dim=2 * features.info.bert_dim))
        yield replace(settings, features=path)


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


# --- accuracy ------------------------------------------------------------------------------------


def measure_accuracy(settings: Settings) -> Row:
    """Both start from random weights; the plain side's epochs are counted, and its speed measured on a part of one."""
    with wide_features(settings) as wide:
        data = load_data(settings.data, wide.features)
        with trained(wide, "--preset", "original", "--epochs", 8) as run:
            n_ratings, epochs = read_json(run / TEST_METRICS)["train_rows"], len(until_goal(run))
        print(f"the original's configuration needs {epochs} epochs")
        ours, plain = in_turn(settings.repeats, lambda: reach_goal(wide), lambda: train_plainly(data))
    limit = training_limit(data, QUICK) / n_ratings
    return Row(f"training to RMSE {GOAL}", "trainings", ours, plain / (epochs * n_ratings), limit, target=50)


def reach_goal(settings: Settings) -> float:
    """How often in a second a small NCF would reach the goal, its validation included."""
    embedding, *hidden = QUICK
    flags = ("--preset", "ncf", "--embedding", embedding, "--hidden", *hidden, "--dropout", 0)
    flags += ("--batch-size", LARGE_BATCH, "--lr", 0.02, "--epochs", 2)
    with trained(settings, *flags) as run:
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
            *("--negatives", NEGATIVES, "--batch-size", LARGE_BATCH),
        ),
        lambda: train_neumf(data),
    )
    limit = training_limit(data, RANKING_SIZES, pairs=1 + NEGATIVES)
    return Row("training to rank", "ratings", ours, plain, limit, target=3)


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
    first, second = model.config.hidden
    limit = flop_rate() / (2 * len(catalogue.movie_ids) * (first * second + second))
    return Row("ten movies for every user", "users", ours, plain, limit, target=5)


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
    return Row("one list, start to end", "runs", ours, plain, plain, target=0.5)


ROWS = {
    "reading": measure_reading,
    "features": measure_features,
    "library": measure_library,
    "training": measure_training,
    "accuracy": measure_accuracy,
    "ranking": measure_ranking,
    "lists": measure_lists,
    "start": measure_start,
}

if __name__ == "__main__":
    cli.run(main)
