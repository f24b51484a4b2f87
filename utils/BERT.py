#!/usr/bin/env python3
"""Turn every movie's title into a BERT vector and its genres into a multi-hot vector.

    python utils/BERT.py
    python utils/BERT.py --data dataset/ml-100k
    python utils/BERT.py --encoder bert-base-uncased --pooling cls
    python utils/BERT.py --metadata dataset/movie_metadata.csv        # also directors, cast ... or columns of your own
    python utils/BERT.py --metadata dataset/movie_metadata.csv --text metadata

Writes `dataset/movie_bert_dict.pkl`, {movieId: float32 [bert_dim + n_genres]}, `dataset/genre2idx.pkl`,
{genre: index}, and `dataset/movie_bert_dict.json`, which says what they are. With --metadata, the columns of that file
go into `dataset/movie_bert_dict_blocks.npz`; its text columns are encoded as the titles are.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from annotated_types import Interval

from utils.cli import display_path, resolve_device, run
from utils.columns import Block, Column, main_texts, make_block, read_columns
from utils.config import (
    DEFAULT_DATA,
    DataFolder,
    Device,
    Encoding,
    FeaturesFile,
    OptionalFileName,
    features_file,
    parse,
)
from utils.encoder import DEFAULT_ENCODER, Encoder, Pooling, Precision, encoder_hash, find_encoder
from utils.features import FeaturesInfo, blocks_path, genres_path, movies_hash, read_info, write_features
from utils.files import sha256
from utils.readers import RawData, read_dataset


@dataclass(frozen=True)
class Settings:
    data: DataFolder = DEFAULT_DATA
    encoding: Encoding = None
    features: FeaturesFile = None
    encoder: str = DEFAULT_ENCODER
    """a BERT-like model: its name on the Hugging Face hub, or its folder"""
    pooling: Pooling = "mean"
    """mean over a text's tokens, or the vector of its first token"""
    metadata: OptionalFileName = None
    """more about the movies: a CSV file from utils/metadata.py or one of your own"""
    text: str = "title"
    """what to encode: title; metadata (title, genres, people, country as a text); or a text column, after the title"""
    precision: Precision = "float32"
    """precision of the encoder: bfloat16 is faster and nearly as exact, int8 (CPU only) faster still but coarse"""
    batch_size: Annotated[int, Interval(ge=1, lt=2**31)] = 128
    """texts encoded together"""
    offline: bool = False
    """download nothing: the encoder must already be on this machine"""
    device: Device = "auto"


def main() -> None:
    settings = parse(Settings, __doc__)
    data = read_dataset(settings.data, settings.encoding)
    columns = read_columns(settings.metadata, data.movies, settings.encoding) if settings.metadata else []
    texts = main_texts(settings.text, data.movies, columns)
    folder, source = find_encoder(settings.encoder, settings.offline)
    planned, features = feature_spec(data, columns, folder, settings), features_file(settings.data, settings.features)
    if is_current(features, planned):
        print(f"{display_path(features)} is current ({data.name}, {settings.encoder}): nothing to do.")
        return
    what = "titles" if settings.text == "title" else "texts"
    print(f"Encoding {len(texts):,} {what} of {data.name} with {settings.encoder} from {source} ...", flush=True)
    encoder = Encoder.load(folder, resolve_device(settings.device), settings.precision)
    vectors = encoder.encode(texts, settings.pooling, settings.batch_size)
    blocks = [as_block(column, encoder, settings) for column in columns]
    write(features, data, vectors, blocks, planned)


def as_block(column: Column, encoder: Encoder, settings: Settings) -> Block:
    """A metadata column as numbers."""
    if column.kind != "text":
        return make_block(column)
    return Block(column.name, "text", encoder.encode(column.values, settings.pooling, settings.batch_size))


def feature_spec(data: RawData, columns: list[Column], folder: Path, settings: Settings) -> dict:
    """Everything that determines the features; equal specifications mean equal features."""
    return {
        "dataset": data.name,
        "n_movies": len(data.movies),
        "texts_sha256": movies_hash(data.movies),
        "encoder": settings.encoder,
        "encoder_sha256": encoder_hash(folder),
        "pooling": settings.pooling,
        "precision": settings.precision,
        "genres": sorted({genre for genres in data.movies["genres"] for genre in genres}),
        "text": settings.text,
        "metadata_sha256": sha256(settings.metadata) if settings.metadata else "",
        "blocks": {column.name: column.kind for column in columns},
    }


def is_current(features: Path, planned: dict) -> bool:
    """Whether the features file exists, is undamaged and matches the plan."""
    found = read_info(features)
    if found is None or not features.is_file() or not genres_path(features).is_file():
        return False
    hashes = {features: found.features_sha256} | ({blocks_path(features): found.blocks_sha256} if found.blocks else {})
    return all(getattr(found, name) == value for name, value in planned.items()) and all(
        path.is_file() and sha256(path) == expected for path, expected in hashes.items()
    )


def write(path: Path, data: RawData, texts, blocks: list[Block], planned: dict) -> None:
    """Join each movie's text vector and multi-hot genres; write them and the metadata blocks."""
    import numpy as np
    from sklearn.preprocessing import MultiLabelBinarizer

    genres = MultiLabelBinarizer(classes=planned["genres"]).fit_transform(data.movies["genres"])
    table = np.hstack([texts, genres.astype(np.float32)])
    vectors = {movie: row.copy() for movie, row in zip(data.movies["movie"].tolist(), table, strict=True)}
    info = FeaturesInfo(**planned, bert_dim=texts.shape[1], features_sha256="")
    write_features(path, vectors, info, blocks)
    print(
        f"Wrote {display_path(path)}: {len(vectors):,} movies, {texts.shape[1]} {planned['text']} dimensions and "
        f"{len(planned['genres'])} genres each."
    )
    for block in blocks:
        n_known = block.n_known()
        words = f"{len(block.vocabulary):,} {block.kind}" if block.vocabulary else block.kind
        print(f"  {block.name}: {words}, known for {n_known:,} movies")


if __name__ == "__main__":
    run(main)
