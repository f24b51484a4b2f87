"""Movie features: writing, reading and checking the files of utils/BERT.py."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from utils.columns import Block
from utils.config import DEFAULT_FEATURES
from utils.files import UserError, atomic_write, read_json, sha256, text_hash, write_json
from utils.pickles import read_pickle, write_pickle

REMAKE = "make it with python utils/BERT.py and the same --data and --features"


@dataclass(frozen=True)
class FeaturesInfo:
    """The description of a features file, kept beside it as JSON."""

    dataset: str
    n_movies: int
    texts_sha256: str  # of ids, titles and genres
    encoder: str
    encoder_sha256: str  # of its weights
    pooling: str
    bert_dim: int
    genres: list[str]
    features_sha256: str
    text: str = "title"  # what the first bert_dim numbers encode
    metadata_sha256: str = ""  # of the metadata file; "" without one
    blocks: dict[str, str] = field(default_factory=dict)  # the kind of each of its columns
    blocks_sha256: str = ""
    precision: str = "float32"  # of the encoder


@dataclass(frozen=True)
class Features:
    """The features of a list of movies, in its order.

    vectors: the title's vector and multi-hot genres, as in the original: float32 [n_movies, bert_dim + n_genres]
    columns: the blocks of a metadata file
    """

    vectors: np.ndarray
    info: FeaturesInfo
    columns: tuple[Block, ...] = ()

    def blocks(self) -> tuple[Block, ...]:
        """All features as blocks: title, genres, and the columns of the metadata file."""
        title, genres = np.split(self.vectors, [self.info.bert_dim], axis=1)
        words = Block("genres", "category", sp.csr_matrix(genres), tuple(self.info.genres))
        return Block("title", "text", title), words, *self.columns


def movies_hash(movies: pd.DataFrame) -> str:
    """SHA-256 of every movie's id, title and genres: two data sets with one hash have the same features."""
    lines = movies["movie"].astype(str) + "\t" + movies["title"] + "\t" + movies["genres"].str.join("|")
    return text_hash(*lines)


def info_path(features: Path) -> Path:
    return features.with_suffix(".json")


def genres_path(features: Path) -> Path:
    """Where {genre: index} is written: `genre2idx.pkl`, as in the original, or `NAME_genre2idx.pkl` for other names."""
    is_default = features.name == DEFAULT_FEATURES.name
    return features.with_name("genre2idx.pkl" if is_default else f"{features.stem}_genre2idx.pkl")


def read_info(features: Path) -> FeaturesInfo | None:
    """The description beside a features file; None if it is missing, damaged or of another version."""
    try:
        return FeaturesInfo(**read_json(info_path(features)))
    except (FileNotFoundError, TypeError, UserError):
        return None


def blocks_path(features: Path) -> Path:
    """Where the columns of a metadata file are written."""
    return features.with_name(f"{features.stem}_blocks.npz")


def write_features(path: Path, vectors: dict, info: FeaturesInfo, columns: Sequence[Block] = ()) -> None:
    """Write the two pickles, the columns of a metadata file and, last, the description that makes them valid.

    Args:
        columns: in the order of `vectors`
    """
    for earlier in (info_path(path), blocks_path(path)):
        earlier.unlink(missing_ok=True)
    write_pickle(path, vectors)
    write_pickle(genres_path(path), {genre: i for i, genre in enumerate(info.genres)})
    hashes = {"features_sha256": sha256(path)}
    if columns:
        write_blocks(blocks_path(path), list(vectors), columns)
        hashes["blocks_sha256"] = sha256(blocks_path(path))
    write_json(info_path(path), asdict(info) | {"blocks": {one.name: one.kind for one in columns}} | hashes)


def write_blocks(path: Path, movies: Sequence, blocks: Sequence[Block]) -> None:
    """Write blocks as plain arrays; those of words as a sparse matrix and its vocabulary."""
    arrays: dict[str, Any] = {"movies": np.array([str(movie) for movie in movies])}
    for block in blocks:
        if sp.issparse(block.values):
            arrays |= {f"{block.name}:{part}": getattr(block.values, part) for part in ("data", "indices", "indptr")}
            arrays[f"{block.name}:vocabulary"] = np.array(block.vocabulary, dtype=np.str_)
        else:
            arrays[f"{block.name}:values"] = block.values
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)


def read_blocks(path: Path, info: FeaturesInfo, movies: pd.Series) -> tuple[Block, ...]:
    """The blocks of a file for these movies, in their order.

    Raises:
        UserError: the file is missing, or not the one that was written with the features.
    """
    if not info.blocks:
        return ()
    if not path.is_file() or sha256(path) != info.blocks_sha256:
        raise UserError(f"{path} is missing or not the file that was written with the features: {REMAKE}.")
    with np.load(path) as arrays:
        order = pd.Index(arrays["movies"]).get_indexer(movies.astype(str))
        found = []
        for name, kind in info.blocks.items():
            if f"{name}:values" in arrays:
                found.append(Block(name, kind, arrays[f"{name}:values"][order]))
                continue
            words = tuple(arrays[f"{name}:vocabulary"].tolist())
            parts = tuple(arrays[f"{name}:{part}"] for part in ("data", "indices", "indptr"))
            matrix = sp.csr_matrix(parts, (len(arrays["movies"]), len(words)))
            found.append(Block(name, kind, matrix[order], words))
    return tuple(found)


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
        raise UserError(f"{path} has vectors of {table.shape[1]} numbers, not {width}, or some not finite: {REMAKE}.")
    return Features(table, info, read_blocks(blocks_path(path), info, movies["movie"]))
