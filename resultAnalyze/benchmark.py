#!/usr/bin/env python3
"""Time this repo against a reference implementation of the same work, both in one run, and print the ratios.

    python resultAnalyze/benchmark.py
    python resultAnalyze/benchmark.py --data dataset/ml-100k --only training

| row | reference |
| --- | --- |
| reading | pandas' python engine on the ratings file |
| features, bfloat16, int8 | the same encoder, one title after the other, in float32 |
| library | sentence_transformers' encode(), if it is installed |
| training | the original's model with a Dataset that builds one sample at a time, batch 256 |
| accuracy | that speed, for the epochs that the original needs to reach a validation RMSE of .9165; here preset ncf |
| ranking | Cornac's NeuMF on PyTorch, four negatives per rating; here preset ncf-ranking of that size, all movies |
| sequences | SASRec of RecTools, if its environment exists; here preset transformer of the same size |
| lists | a loop over users, each with the whole catalogue as one batch |
| start | `python -c "import torch"`, against one user's list from start to end |

The two sides take turns, and their median speeds are compared. The limit is the speed that this machine would reach if
only the row's arithmetic took time, at the rate of its matrix products (for reading: if only reading the file's bytes
did; for start: if only importing torch did). Title vectors are doubled for training, so that with the default encoder
they are as wide as the original's. Writes resultAnalyze/benchmark.json.
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

from Models.checkpoint import load_model
from Models.configs import PRESETS, DataConfig
from Models.evaluation.rankings import RankingEvaluator
from Models.inference.recommend import TopNRecommender
from Models.inputs import PositiveInt
from Models.layers import N_CLOCK
from Models.ratings_data import RatingsData, load_data
from resultAnalyze.compare_rectools import PYTHON as RECTOOLS_PYTHON
from resultAnalyze.compare_rectools import Settings as RectoolsSettings
from resultAnalyze.compare_rectools import train as train_rectools
from resultAnalyze.compare_rectools import write_rows
from resultAnalyze.references import (
    LARGE_BATCH,
    RANKING_SIZES,
    reference_encode,
    reference_list,
    reference_neumf,
    reference_train,
    speed,
)
from utils import cli
from utils.config import DEFAULT_DATA, DataFolder, FeaturesFile, FileName, features_file, parse
from utils.encoder import DEFAULT_ENCODER, Encoder, Precision, find_encoder
from utils.features import read_features, write_features
from utils.files import ROOT, UserError, read_json, write_json
from utils.ratings import read_ratings
from utils.readers import read_dataset
from utils.runs import TEST_METRICS

REFERENCE_TITLES = 300  # the references do only part of the work, enough to measure their speed
REFERENCE_USERS = 200
TRAIN_SHARE = 0.8
GOAL = 0.9165  # validation RMSE on MovieLens 1M: the original's own figure
ORIGINAL = (32, 128, 64)  # embedding size, units of the layers

Features = Literal["reading", "features", "bfloat16", "int8", "library"]
Work = Literal["all", Features, "training", "accuracy", "ranking", "sequences", "lists", "start"]


@dataclass(frozen=True)
class Settings:
    data: DataFolder = DEFAULT_DATA
    features: FeaturesFile = None
    only: Work = "all"
    """which row to measure"""
    repeats: PositiveInt = 5
    """how often each side runs"""
    output: FileName = ROOT / "resultAnalyze" / "benchmark.json"
    """where the figures go"""


@dataclass(frozen=True)
class Row:
    """A finished comparison; speeds in `unit` per second, the medians of all repeats."""

    work: str
    unit: str
    ours: float
    reference: float
    limit: float

    @property
    def ratio(self) -> float:
        return self.ours / self.reference


def main() -> None:
    settings = parse(Settings, __doc__)
    settings = replace(settings, features=features_file(settings.data, settings.features))
    rows = []
    for name, measure in ROWS.items():
        if settings.only in ("all", name):
            print(f"Measuring {name} ...", flush=True)
            rows.append(measure(settings))
    rows = [row for row in rows if row]
    print(f"\n| work | ours | reference | ratio | limit | ours / limit |\n{'| --- ' * 6}|")
    for row in rows:
        speeds = [f"{v:,.{0 if v >= 10 else 3}f} {row.unit}/s" for v in (row.ours, row.reference, row.limit)]
        print(
            f"| {row.work} | {speeds[0]} | {speeds[1]} | {row.ratio:.1f}x | {speeds[2]} | {row.ours / row.limit:.0%} |"
        )
    machine = {"torch": torch.__version__, "threads": torch.get_num_threads(), "repeats": settings.repeats}
    machine |= {"flop_per_second": flop_rate()}
    write_json(settings.output, machine | {"rows": [asdict(row) | {"ratio": row.ratio} for row in rows]})


def in_turn(repeats: int, ours: Callable[[], float], reference: Callable[[], float]) -> tuple[float, float]:
    """Run two measurements in turns and return their median speeds."""
    speeds = [(ours(), reference()) for _ in range(repeats)]
    return median(a for a, _ in speeds), median(b for _, b in speeds)


# --- limits --------------------------------------------------------------------------------------


def flop_rate() -> float:
    """Floating-point operations per second in this machine's matrix products, float32."""
    a = torch.randn(1024, 1024)
    return median(speed(2 * 1024**3, lambda: a @ a) for _ in range(20))


def training_limit(data: RatingsData, sizes: tuple[int, int, int]) -> float:
    """Ratings per second if only the products with the MLP's weights took time, once forward and twice backward.

    The first layer's part of a user is computed once per rating, that of a movie once per movie of the batch.
    """
    embedding, first, second = sizes
    movies = len(np.unique(np.random.default_rng(0).choice(data.movie, LARGE_BATCH)))
    a_movie = (embedding + data.features.vectors.shape[1]) * first
    a_rating = embedding * first + first * second + second + movies / LARGE_BATCH * a_movie
    return flop_rate() / (6 * a_rating)


# --- reading -------------------------------------------------------------------------------------


def measure_reading(settings: Settings) -> Row:
    separators = {"ratings.dat": "::", "u.data": "\t", "ratings.csv": ","}
    path = next((settings.data / name for name in separators if (settings.data / name).is_file()), None)
    if path is None:
        raise UserError(f"{settings.data} has none of {', '.join(separators)}: name another folder with --data.")
    separator = separators[path.name]
    n = len(read_ratings(path))
    ours, reference = in_turn(
        settings.repeats,
        lambda: speed(n, lambda: read_ratings(path)),
        lambda: speed(n, lambda: pd.read_csv(path, sep=separator, engine="python", header=None)),
    )
    limit = median(speed(n, path.read_bytes) for _ in range(5))
    return Row(f"reading {path.name}", "ratings", ours, reference, limit)


# --- features ------------------------------------------------------------------------------------


def measure_features(settings: Settings, precision: Precision = "float32") -> Row:
    titles, plain = titles_and_encoder(settings)
    encoder = titles_and_encoder(settings, precision)[1]
    some = np.random.default_rng(0).choice(titles, min(REFERENCE_TITLES, len(titles)), replace=False).tolist()
    difference = np.abs(encoder.encode(some) - reference_encode(plain, some)).max()  # also warms up both sides
    print(f"largest difference between the two sides: {difference:.1e}")
    ours, reference = in_turn(
        settings.repeats,
        lambda: speed(len(titles), lambda: encoder.encode(titles)),
        lambda: speed(len(some), lambda: reference_encode(plain, some)),
    )
    words = "title vectors" + f", `--precision {precision}`" * (precision != "float32")
    return Row(words, "titles", ours, reference, encoding_limit(titles, plain))


def measure_library(settings: Settings) -> Row | None:
    """None if the library is not installed."""
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError:
        print("sentence_transformers is not installed: this row is skipped.")
        return None
    titles, encoder = titles_and_encoder(settings)
    library = SentenceTransformer(str(find_encoder(DEFAULT_ENCODER)[0]), device="cpu")
    encoder.encode(titles[:REFERENCE_TITLES]), library.encode(titles[:REFERENCE_TITLES])
    ours, reference = in_turn(
        settings.repeats,
        lambda: speed(len(titles), lambda: encoder.encode(titles)),
        lambda: speed(len(titles), lambda: library.encode(titles, show_progress_bar=False)),
    )
    return Row("title vectors, sentence_transformers", "titles", ours, reference, encoding_limit(titles, encoder))


def titles_and_encoder(settings: Settings, precision: Precision = "float32") -> tuple[list[str], Encoder]:
    titles = read_dataset(settings.data).movies["title"].tolist()
    return titles, Encoder.load(find_encoder(DEFAULT_ENCODER)[0], torch.device("cpu"), precision)


def encoding_limit(titles: list[str], encoder: Encoder) -> float:
    """Titles per second if only the products with the layers' weights took time."""
    tokens = sum(len(words) for words in encoder.tokenizer(titles)["input_ids"])
    weights = sum(parameter.numel() for parameter in encoder.model.encoder.parameters())
    return len(titles) * flop_rate() / (2 * weights * tokens)


# --- training ------------------------------------------------------------------------------------


def measure_training(settings: Settings) -> Row:
    with wide_features(settings) as wide:
        data = load_data(settings.data, wide.features)
        flags = "--preset", "original", "--batch-size", LARGE_BATCH
        ours, reference = in_turn(settings.repeats, lambda: second_epoch(wide, *flags), lambda: reference_train(data))
    return Row("training, original model", "ratings", ours, reference, training_limit(data, ORIGINAL))


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
    """Training ratings per second in the second epoch of train.py with these flags, without validation."""
    with trained(settings, *flags, "--ratios", TRAIN_SHARE, 0, round(1 - TRAIN_SHARE, 6), "--epochs", 2) as run:
        return read_json(run / TEST_METRICS)["train_rows"] / pd.read_csv(run / "metrics.csv")["seconds"][1]


@contextmanager
def trained(settings: Settings, *flags: object) -> Iterator[Path]:
    """Run train.py with these flags; its run folder exists as long as the block runs."""
    with tempfile.TemporaryDirectory() as scratch:
        run = Path(scratch) / "run"
        places = ["--data", settings.data, "--features", settings.features, "--run", run, "--device", "cpu"]
        command = [sys.executable, ROOT / "train.py", *places, *flags]
        done = subprocess.run([str(word) for word in command], stdout=subprocess.DEVNULL)
        if done.returncode:
            sys.exit(done.returncode)  # it has printed its error
        yield run


# --- accuracy ------------------------------------------------------------------------------------


def measure_accuracy(settings: Settings) -> Row:
    """Both start from random weights; the reference's epochs are counted, and its speed is measured on part of one."""
    with wide_features(settings) as wide:
        data = load_data(settings.data, wide.features)
        with trained(wide, "--preset", "original", "--epochs", 8) as run:
            n_ratings, epochs = read_json(run / TEST_METRICS)["train_rows"], len(until_goal(run))
        print(f"the original's configuration needs {epochs} epochs")
        ours, reference = in_turn(settings.repeats, lambda: reach_goal(wide), lambda: reference_train(data))
    config, batch = PRESETS["ncf"].model, PRESETS["ncf"].optim.batch_size
    dim, units = config.embedding_dim, config.hidden_dim
    context = data.user_features.shape[1] + N_CLOCK
    a_step = len(data.movies) * data.features.vectors.shape[1] * (dim + 1)  # from the features of all movies
    limit = flop_rate() / (6 * ((2 * dim + context) * units + units + a_step / batch)) / n_ratings
    return Row(f"training to RMSE {GOAL}", "trainings", ours, reference / (epochs * n_ratings), limit)


def reach_goal(settings: Settings) -> float:
    """How often per second preset ncf would reach the goal, including its validation."""
    with trained(settings, "--preset", "ncf", "--epochs", 4) as run:
        return 1 / until_goal(run)["seconds"].sum()


def until_goal(run: Path) -> pd.DataFrame:
    """The epochs of a run up to the first that reaches the goal.

    Raises:
        UserError: none does.
    """
    epochs = pd.read_csv(run / "metrics.csv")
    reached = epochs["val_rmse"] <= GOAL
    if not reached.any():
        raise UserError(f"No epoch reached a validation RMSE of {GOAL}: that goal is for MovieLens 1M.")
    return epochs[: int(reached.argmax()) + 1]


# --- ranking -------------------------------------------------------------------------------------


def measure_ranking(settings: Settings) -> Row:
    data = load_data(settings.data, settings.features)
    embedding, units, _ = RANKING_SIZES
    flags = ("--preset", "ncf-ranking", "--embedding-dim", embedding, "--hidden-dim", units)
    ours, reference = in_turn(settings.repeats, lambda: second_epoch(settings, *flags), lambda: reference_neumf(data))
    a_user = 2 * len(data.movies) * embedding + 2 * embedding * units  # the sum over all movies, all scores, the MLP
    limit = flop_rate() / (6 * a_user) * TRAIN_SHARE * len(data.rating) / len(data.user_ids)
    return Row("training to rank", "ratings", ours, reference, limit)


# --- sequences -----------------------------------------------------------------------------------


def measure_sequences(settings: Settings) -> Row | None:
    """The second epoch and its validation, each side with its own batch size; None without RecTools."""
    if not RECTOOLS_PYTHON.is_file():
        print("RecTools is not installed (resultAnalyze/compare_rectools.py): this row is skipped.")
        return None
    data, split = DataConfig(settings.data, settings.features, "leave-one-out").load()
    dim, layers = 50, 2
    size = ("--embedding-dim", dim, "--num-heads", 1, "--num-layers", layers, "--no-request-time", "--epochs", 2)
    flags = ("--preset", "transformer", *size, "--split", "leave-one-out", "--relevance-threshold", data.rating.min())

    def ours() -> float:
        with trained(settings, *flags) as run:
            return len(split.train) / pd.read_csv(run / "metrics.csv")["seconds"][1]

    def reference() -> float:
        with tempfile.TemporaryDirectory() as scratch:
            write_rows(RankingEvaluator(data, split, data.rating.min()), Path(scratch))
            seconds = []
            for epochs in (1, 2):  # the difference is the time of the second epoch
                train_rectools(RECTOOLS_PYTHON, Path(scratch), "SASRec", 0, RectoolsSettings(epochs=epochs))
                seconds.append(read_json(Path(scratch) / "SASRec-0.json")["seconds"])
            return len(split.train) / (seconds[1] - seconds[0])

    read = np.minimum(np.bincount(data.user[split.train]), PRESETS["transformer"].model.max_length).sum()
    a_rating = 12 * layers * dim**2 + len(data.movies) * dim  # the layers' weights and all scores
    limit = flop_rate() / (6 * a_rating) * len(split.train) / read
    return Row("training a Transformer of sequences", "ratings", *in_turn(settings.repeats, ours, reference), limit)


# --- lists ---------------------------------------------------------------------------------------


def measure_lists(settings: Settings) -> Row:
    with trained(settings, "--preset", "original", "--epochs", 1) as run:
        saved = load_model(run / "best.pt", torch.device("cpu"))
    recommender, known = TopNRecommender(saved.model, saved.ids), saved.ratings.history
    everyone = range(len(saved.ids.user_ids))
    some = everyone[:REFERENCE_USERS]
    pairs = zip(recommender.for_users(some, known, known), reference_list(saved, some), strict=True)
    differ = sum([movie.id for movie in one.movies] != other for one, other in pairs)
    print(f"lists that differ between the two sides: {differ} of {len(some)}")
    ours, reference = in_turn(
        settings.repeats,
        lambda: speed(len(everyone), lambda: list(recommender.for_users(everyone, known, known))),
        lambda: speed(len(some), lambda: reference_list(saved, some)),
    )
    first, second = saved.model.config.hidden_dims
    limit = flop_rate() / (2 * len(saved.ids.movie_ids) * (first * second + second))
    return Row("ten movies for every user", "users", ours, reference, limit)


# --- start ---------------------------------------------------------------------------------------


def measure_start(settings: Settings) -> Row:
    with trained(settings, "--preset", "ncf", "--epochs", 1) as run:
        script = [sys.executable, ROOT / "generate_recommendation.py", "--run", run]
        ours, reference = in_turn(
            settings.repeats,
            lambda: speed(1, lambda: subprocess.run(script, check=True, capture_output=True)),
            lambda: speed(1, lambda: subprocess.run([sys.executable, "-c", "import torch"], check=True)),
        )
    return Row("one list, start to end", "runs", ours, reference, reference)


ROWS = {
    "reading": measure_reading,
    "features": measure_features,
    "bfloat16": lambda settings: measure_features(settings, "bfloat16"),
    "int8": lambda settings: measure_features(settings, "int8"),
    "library": measure_library,
    "training": measure_training,
    "accuracy": measure_accuracy,
    "ranking": measure_ranking,
    "sequences": measure_sequences,
    "lists": measure_lists,
    "start": measure_start,
}

if __name__ == "__main__":
    cli.run(main)
