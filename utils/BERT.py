#!/usr/bin/env python3
"""Turn every movie's title into a BERT vector and its genres into a multi-hot vector.

    python utils/BERT.py
    python utils/BERT.py --data dataset/ml-100k
    python utils/BERT.py --encoder bert-base-uncased --pooling cls

Writes `dataset/movie_bert_dict.pkl`, {movieId: float32 [bert_dim + n_genres]}, `dataset/genre2idx.pkl`,
{genre: index}, and `dataset/movie_bert_dict.json`, which says what they are.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from annotated_types import Interval

from utils.cli import display_path, resolve_device, run
from utils.config import DEFAULT_DATA, DEFAULT_FEATURES, DataFolder, Device, Encoding, FeaturesFile, parse
from utils.encoder import DEFAULT_ENCODER, Encoder, Pooling, encoder_hash, find_encoder
from utils.features import FeaturesInfo, genres_path, movies_hash, read_info, write_features
from utils.files import sha256
from utils.readers import MovieLens, read_dataset


@dataclass(frozen=True)
class Settings:
    data: DataFolder = DEFAULT_DATA
    encoding: Encoding = None
    features: FeaturesFile = DEFAULT_FEATURES
    encoder: str = DEFAULT_ENCODER
    """name on the Hugging Face hub, or folder, of a BERT-like model"""
    pooling: Pooling = "mean"
    """mean over a title's tokens, or the vector of its first token"""
    batch_size: Annotated[int, Interval(ge=1, lt=2**31)] = 128
    """titles encoded together"""
    offline: bool = False
    """fetch nothing: the encoder must be on this machine"""
    device: Device = "auto"


def main() -> None:
    settings = parse(Settings, __doc__)
    data = read_dataset(settings.data, settings.encoding)
    folder, source = find_encoder(settings.encoder, settings.offline)
    planned = feature_spec(data, folder, settings)
    if is_current(settings.features, planned):
        print(f"{display_path(settings.features)} is current ({data.name}, {settings.encoder}): nothing to do.")
        return
    print(f"Encoding {len(data.movies):,} titles of {data.name} with {settings.encoder} from {source} ...", flush=True)
    encoder = Encoder.load(folder, resolve_device(settings.device))
    titles = encoder.encode(data.movies["title"].tolist(), settings.pooling, settings.batch_size)
    write(settings.features, data, titles, planned)


def feature_spec(data: MovieLens, folder: Path, settings: Settings) -> dict:
    """All that decides what the features are; equal specifications mean equal features."""
    return {
        "dataset": data.name,
        "n_movies": len(data.movies),
        "texts_sha256": movies_hash(data.movies),
        "encoder": settings.encoder,
        "encoder_sha256": encoder_hash(folder),
        "pooling": settings.pooling,
        "genres": sorted({genre for genres in data.movies["genres"] for genre in genres}),
    }


def is_current(features: Path, planned: dict) -> bool:
    """Whether the features file is there, whole and as planned."""
    found = read_info(features)
    if found is None or not features.is_file() or not genres_path(features).is_file():
        return False
    return all(getattr(found, name) == value for name, value in planned.items()) and (
        sha256(features) == found.features_sha256
    )


def write(path: Path, data: MovieLens, titles, planned: dict) -> None:
    """Join the title vector and multi-hot genres of each movie and write them."""
    import numpy as np
    from sklearn.preprocessing import MultiLabelBinarizer

    genres = MultiLabelBinarizer(classes=planned["genres"]).fit_transform(data.movies["genres"])
    table = np.hstack([titles, genres.astype(np.float32)])
    vectors = {movie: row.copy() for movie, row in zip(data.movies["movie"].tolist(), table, strict=True)}
    write_features(path, vectors, FeaturesInfo(**planned, bert_dim=titles.shape[1], features_sha256=""))
    print(
        f"Wrote {display_path(path)}: {len(vectors):,} movies, {titles.shape[1]} title dimensions and "
        f"{len(planned['genres'])} genres each."
    )


if __name__ == "__main__":
    run(main)
