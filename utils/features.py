"""Movie features: reading and checking what utils/BERT.py wrote, and naming what it would write."""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from utils.config import DEFAULT_FEATURES
from utils.files import UserError, read_json, read_pickle, sha256, text_hash, write_json, write_pickle

REMAKE = "make it with python utils/BERT.py and the same --data and --features"


@dataclass(frozen=True)
class FeaturesInfo:
    """What a features file is, kept beside it as JSON."""

    dataset: str
    n_movies: int
    texts_sha256: str  # of ids, titles and genres
    encoder: str
    encoder_sha256: str  # of its weights
    pooling: str
    bert_dim: int
    genres: list[str]
    features_sha256: str


@dataclass(frozen=True)
class Features:
    """Movie vectors in the order of a list of movies: float32 [n_movies, bert_dim + n_genres]."""

    vectors: np.ndarray
    info: FeaturesInfo


def movies_hash(movies: pd.DataFrame) -> str:
    """SHA-256 of every movie's id, title and genres: two data sets with one hash have the same features."""
    lines = movies["movie"].astype(str) + "\t" + movies["title"] + "\t" + movies["genres"].str.join("|")
    return text_hash(*lines)


def info_path(features: Path) -> Path:
    return features.with_suffix(".json")


def genres_path(features: Path) -> Path:
    """Where {genre: index} is written: `genre2idx.pkl`, as in the original, or beside features of another name."""
    is_default = features.name == DEFAULT_FEATURES.name
    return features.with_name("genre2idx.pkl" if is_default else f"{features.stem}_genre2idx.pkl")


def read_info(features: Path) -> FeaturesInfo | None:
    """The description beside a features file; None where there is none or it is of another version."""
    try:
        return FeaturesInfo(**read_json(info_path(features)))
    except (FileNotFoundError, TypeError, UserError):
        return None


def write_features(path: Path, vectors: dict, info: FeaturesInfo) -> None:
    """Write the two pickles and, last, the description that makes them valid."""
    info_path(path).unlink(missing_ok=True)
    write_pickle(path, vectors)
    write_pickle(genres_path(path), {genre: i for i, genre in enumerate(info.genres)})
    write_json(info_path(path), {**asdict(info), "features_sha256": sha256(path)})


def read_features(path: Path, movies: pd.DataFrame) -> Features:
    """Read a features file for these movies, in their order.

    Raises:
        UserError: the file is missing, damaged or of another data set, or lacks some of the movies.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"There is no features file {path}: {REMAKE}.")
    if (info := read_info(path)) is None:
        raise UserError(f"{path} has no description {info_path(path).name} beside it: {REMAKE}.")
    if sha256(path) != info.features_sha256:
        raise UserError(f"{path} is not the file that {info_path(path).name} describes: {REMAKE}.")
    vectors = read_pickle(path)
    if missing := [movie for movie in movies["movie"].tolist() if movie not in vectors]:
        shown = ", ".join(map(str, missing[:5])) + (", ..." if len(missing) > 5 else "")
        raise UserError(f"{path}, made for {info.dataset}, lacks {len(missing)} movies ({shown}): {REMAKE}.")
    if movies_hash(movies) != info.texts_sha256:
        raise UserError(f"{path} was made for {info.dataset} with other movies, titles or genres: {REMAKE}.")
    table = np.stack([vectors[movie] for movie in movies["movie"].tolist()]).astype(np.float32, copy=False)
    width = info.bert_dim + len(info.genres)
    if table.shape[1] != width or not np.isfinite(table).all():
        raise UserError(f"{path} has vectors of {table.shape[1]} numbers, not {width}, or not finite: {REMAKE}.")
    return Features(table, info)
