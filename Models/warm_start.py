"""Warm start: train on from a finished run when there are more ratings, users and movies than it knew."""

import dataclasses
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from Models.checkpoint import SavedModel, load_model
from Models.dataLoader import RatingsData
from utils.files import UserError, note, read_json
from utils.splits import TEST, TRAIN, VAL, Split

# What decides what a column of the features means, and its words.
SAME_FEATURES = {"encoder_sha256": "encoder", "pooling": "pooling", "bert_dim": "width", "genres": "list of genres"}
MOST_OUTSIDE = 0.25  # of a scale's width, by which new ratings can lie outside


def load_earlier(run: Path, data: RatingsData) -> SavedModel:
    """The model to go on from.

    Raises:
        UserError: it was trained with other features.
    """
    now, then = asdict(data.features.info), read_json(run / "config.json").get("features", {})
    if changed := [name for name in SAME_FEATURES if now[name] != then.get(name)]:
        raise UserError(
            f"The {SAME_FEATURES[changed[0]]} of the features is not that of {run}: make them as they were, or train "
            "anew without --continue-from."
        )
    return load_model(run / "best.pt", torch.device("cpu"))


def split_after(earlier: SavedModel, data: RatingsData, split: Split) -> Split:
    """The split without a test of what the earlier training knew: its training rows train, its validation rows
    validate or train.

    Raises:
        UserError: nothing is left to test.
    """
    user, movie = (
        pd.Index(ids).get_indexer(old) for ids, old in _ids(earlier, data)
    )  # of the earlier indices; -1: gone
    history = earlier.known.history
    user, movie = user[history.users().numpy()], movie[history.movie.numpy()]
    there = (user >= 0) & (movie >= 0)
    part_of = pd.Series(earlier.known.part.numpy()[there], user[there] * len(data.movies) + movie[there])
    then = part_of.reindex(data.user * len(data.movies) + data.movie, fill_value=TEST).to_numpy()
    now = split.parts(len(data.user))
    part = np.minimum(now, then)  # training comes before validation, and that before the test
    moved = int((part < now).sum())
    rows = [rows[part[rows] == which] for which, rows in ((VAL, split.val), (TEST, split.test))]
    if not len(rows[1]):
        raise UserError(
            f"The training before knew all ratings of {data.name}, so that none is left to test: add newer ones, or "
            "train anew without --continue-from."
        )
    moved_rows = [np.flatnonzero((part == which) & (now != which)) for which in (TRAIN, VAL)]
    words = f"{split.protocol}; {moved:,} rows moved towards training, which the training before knew"
    return Split(np.concatenate([split.train, moved_rows[0]]), np.concatenate([rows[0], moved_rows[1]]), rows[1], words)


def on_scale_of(earlier: SavedModel, data: RatingsData) -> RatingsData:
    """The data on the scale of the earlier training, on which its weights have their meaning.

    Raises:
        UserError: the ratings are clearly on another one.
    """
    scale, low, high = earlier.model.stats.scale, float(data.rating.min()), float(data.rating.max())
    words = f"The ratings of {data.name} are from {low:g} to {high:g} and were from {scale.low:g} to {scale.high:g}"
    outside = max(scale.low - low, high - scale.high)
    if outside > (scale.high - scale.low) * MOST_OUTSIDE:
        raise UserError(f"{words}, which is another scale: train anew without --continue-from.")
    if outside > 0:
        note(f"{words}: the model keeps its scale, so that no prediction lies outside it.")
    return dataclasses.replace(data, scale=scale)


@torch.no_grad()
def start_from(earlier: SavedModel, data: RatingsData, model: nn.Module) -> None:
    """Give the model the earlier one's weights: users and movies by their ids; new ones stay as they were drawn.

    Raises:
        UserError: the two models are not alike.
    """
    old = earlier.model
    if type(model) is not type(old) or not hasattr(model, "tables"):
        raise UserError(f"A {type(model).__name__} can't go on from a {type(old).__name__}: leave --continue-from out.")
    tables, old_tables = model.tables(), old.tables()
    of_rows = {table.data_ptr() for kind in tables.values() for table in kind}
    pairs = [(p, q) for p, q in zip(model.parameters(), old.parameters(), strict=True) if p.data_ptr() not in of_rows]
    pairs += [(t[:0], u[:0]) for kind in tables for t, u in zip(tables[kind], old_tables[kind], strict=True)]
    if any(one.shape != other.shape for one, other in pairs):
        raise UserError(
            "The model has other sizes than the one to go on from, by its settings, or by genders, ages or occupations "
            "that are new: leave the settings as they were, or train anew without --continue-from."
        )
    for one, other in pairs:
        one.copy_(other)
    for kind, (ids, old_ids) in zip(("user", "movie"), _ids(earlier, data), strict=True):
        row = pd.Index(old_ids).get_indexer(ids)
        for table, old_table in zip(tables.get(kind, ()), old_tables.get(kind, ()), strict=True):
            table[row >= 0] = old_table[row[row >= 0]].to(table.device)


def _ids(earlier: SavedModel, data: RatingsData) -> list[tuple[list, list]]:
    """The users' and the movies' ids, each as they are now and as they were."""
    return [(data.user_ids, earlier.ids.user_ids), (data.movies["movie"].tolist(), earlier.ids.movie_ids)]
