"""Movies that a run did not know: read from a file, encoded as its own movies were, and added to its model.

Nothing is trained. What the model learned for each single movie is zero for the new ones; what it learned about titles,
genres and the other blocks, and about the popularity predicted from them, applies to new movies too.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F

from Models.checkpoint import SavedModel, build_model, not_in_tables, place
from Models.Dataset import Model
from Models.features import BlockScale, FeatureSpace
from Models.layers import Posterior
from utils.columns import Block, Column, main_texts, multi_hot, read_columns
from utils.encoder import Encoder, encoder_hash, find_encoder
from utils.files import UserError, note, read_json
from utils.movie_files import read_movies


@dataclass(frozen=True)
class NewMovies:
    """The movies of a file.

    movies: movie (its id, as in the file), title, year and genres
    columns: their other features
    """

    path: Path
    movies: pd.DataFrame
    columns: list[Column]


def read_new_movies(path: Path, encoding: str | None = None) -> NewMovies:
    """The movies of a file with the columns movieId, title and, optionally, year, genres and those of metadata files.

    Raises:
        UserError: the file is damaged or empty, or lists a movie twice.
    """
    movies = read_movies(path, encoding)
    if movies.empty:
        raise UserError(f"{path} has no movie below its header: add one.")
    if (repeated := movies["movie"].duplicated()).any():
        raise UserError(f"{path}: movie {movies['movie'][repeated].iloc[0]} is listed twice: keep one line for each.")
    return NewMovies(path, movies, read_columns(path, movies, encoding))


def add_new_movies(saved: SavedModel, run: Path, new: NewMovies, device: torch.device) -> SavedModel:
    """The model of a run with these movies after its own.

    Raises:
        UserError: one of them is in the data already, or the run's model or features can't take new movies.
    """
    ids, inputs, k = saved.ids, saved.inputs, len(new.movies)
    if known := sorted(set(new.movies["movie"].astype(str)) & set(map(str, ids.movie_ids))):
        raise UserError(f"{new.path}: movie {known[0]} is in {ids.dataset} already: give new movies ids of their own.")
    if inputs.space is None or not hasattr(saved.model, "tables"):
        raise UserError(f"{type(saved.model).__name__} can't take new movies: take a run of another preset.")
    year = new.movies["year"].to_numpy(np.float32, na_value=0)
    space = FeatureSpace.from_plain(inputs.space)
    rows = space.rows(encoded(new, run, space.scales, device), year)
    extended = dataclasses.replace(
        inputs,
        features=torch.cat([inputs.features, rows.features]),
        names=tuple(torch.cat(pair).coalesce() for pair in zip(inputs.names, rows.names, strict=True)),
        year=torch.cat([inputs.year, torch.from_numpy(year)]),
        item_weights=padded_item_weights(saved, k),
        count=F.pad(inputs.count, (0, k)),
        n_new=k,
    )
    stats = dataclasses.replace(saved.model.stats, n_movies=len(ids.movie_ids) + k)
    model = build_model(saved.model.config, stats, extended)
    copy_weights(saved.model, model)
    ids = dataclasses.replace(
        ids,
        movie_ids=ids.movie_ids + [typed_like(ids.movie_ids, movie) for movie in new.movies["movie"]],
        titles=ids.titles + new.movies["title"].tolist(),
        genres=ids.genres + new.movies["genres"].str.join("|").tolist(),
        years=ids.years + year.astype(int).tolist(),
        n_new=k,
    )
    return SavedModel(place(model, device).eval(), ids, saved.ratings, extended)


def padded_item_weights(saved: SavedModel, k: int) -> Tensor | None:
    """B of EASE with zeros for k more movies; None if the model ranks new movies by it and so solves it again."""
    if saved.inputs.item_weights is None or saved.model.ranks_new_by_ease:
        return None
    return F.pad(saved.inputs.item_weights, (0, k, 0, k))


def typed_like(ids: list, written: str) -> int | str:
    """An id in the type of the data's: an integer if all of those are and this is one."""
    are_integers = all(isinstance(one, int) for one in ids)
    return int(written) if are_integers and str(written).isdecimal() and str(int(written)) == str(written) else written


@torch.no_grad()
def copy_weights(old: Model, new: Model) -> None:
    """Copy the parameters of a model with fewer movies; the other movies get those of an untrained movie.

    These are 0 or, for Gaussian parameters, their prior.
    """
    tables, old_tables = new.tables(), old.tables()
    for kind, parts in tables.items():
        for part, other in zip(parts, old_tables[kind], strict=True):
            part.zero_()[: len(other)] = other
    for part, other in zip(not_in_tables(tables, new), not_in_tables(old_tables, old), strict=True):
        part.copy_(other)
    for part, other in zip(new.modules(), old.modules(), strict=True):
        if isinstance(part, Posterior):
            part.log_std[len(other.log_std) :] = other.prior_variance().log() / 2


# --- encoding the movies of the file -------------------------------------------------------------


def encoded(new: NewMovies, run: Path, scales: tuple[BlockScale, ...], device: torch.device) -> list[Block]:
    """The blocks of the run's features for new movies, with the run's encoder; prints what the run knows of the file.

    Raises:
        UserError: the run's encoder cannot be found or has changed, or a column is of another kind.
    """
    info: dict[str, Any] = read_json(run / "config.json")["features"]
    columns = {column.name: column for column in new.columns}
    genres = Column("genres", "category", new.movies["genres"].tolist())
    encoder = run_encoder(info, device) if any(one.kind == "text" for one in scales) else None
    found, words = [], []
    for scale in scales:
        if scale.name == "title":
            texts = main_texts(info["text"] if is_known(info["text"], columns) else "title", new.movies, new.columns)
            found.append(Block("title", "text", encoder.encode(texts, info["pooling"])))
            continue
        column = genres if scale.name == "genres" else columns.get(scale.name)
        if column is not None and column.kind != scale.kind:
            raise UserError(
                f"{new.path}: {scale.name} is of the kind {column.kind}, in the run {scale.kind}: change it."
            )
        found.append(block_of(column, scale, len(new.movies), encoder, info["pooling"]))
        if column is not None and scale.vocabulary:
            n = sum(map(len, column.values))
            words.append(f"{int(found[-1].values.sum()):,} of {n:,} {scale.name}")
    note(f"{new.path}: {len(new.movies):,} new movies; the run knows {', '.join(words) or 'their titles'}.")
    return found


def is_known(text: str, columns: dict[str, Column]) -> bool:
    """Whether a file of new movies has the columns that the run's texts were made from."""
    return text in columns if text != "metadata" else bool(columns)


def block_of(column: Column | None, scale: BlockScale, n: int, encoder: Encoder | None, pooling: str) -> Block:
    """A column of new movies with the run's vocabulary; without the column, all values are unknown."""
    if scale.kind == "text":
        texts = [""] * n if column is None else column.values
        return Block(scale.name, "text", encoder.encode(texts, pooling))
    if scale.kind == "number":
        values = [np.nan] * n if column is None else column.values
        return Block(scale.name, "number", np.array(values, np.float32)[:, None])
    if column is None:
        return Block(scale.name, scale.kind, multi_hot([()] * n, scale.vocabulary), scale.vocabulary)
    spelling = {word.casefold(): word for word in scale.vocabulary}
    spelling |= {word: word for word in scale.vocabulary}  # a word as it is written comes first
    lists = [[spelling.get(word, spelling.get(word.casefold(), word)) for word in words] for words in column.values]
    return Block(scale.name, scale.kind, multi_hot(lists, scale.vocabulary), scale.vocabulary)


def run_encoder(info: dict[str, Any], device: torch.device) -> Encoder:
    """The encoder that made a run's features."""
    folder, _ = find_encoder(info["encoder"])
    if encoder_hash(folder) != info["encoder_sha256"]:
        raise UserError(f"The encoder {info['encoder']} is not the run's: put the earlier one there.")
    return Encoder.load(folder, device, info["precision"])
