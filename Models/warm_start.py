"""Warm start: train on from a finished run when there are more ratings, users and movies than it knew."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from Models.checkpoint import SavedModel, load_model
from Models.dataLoader import RatingsData
from utils.files import UserError, read_json
from utils.splits import TEST, TRAIN, VAL, Split

SAME_FEATURES = ("encoder_sha256", "pooling", "bert_dim", "genres")  # what decides what a feature's column means


def load_earlier(run: Path, data: RatingsData) -> SavedModel:
    """The model to go on from.

    Raises:
        UserError: it was trained with other features.
    """
    now, then = asdict(data.features.info), read_json(run / "config.json").get("features", {})
    if changed := [name for name in SAME_FEATURES if now[name] != then.get(name)]:
        raise UserError(
            f"The features have another {changed[0]} than those that {run} was trained with: make them as they were, "
            "or train anew without --continue-from."
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


@torch.no_grad()
def start_from(earlier: SavedModel, data: RatingsData, model: nn.Module) -> None:
    """Give the model the earlier one's weights: users and movies by their ids; new ones stay as they were drawn.

    Raises:
        UserError: the two models or their rating scales are not alike.
    """
    old = earlier.model
    if type(model) is not type(old) or not hasattr(model, "tables"):
        raise UserError(f"A {type(model).__name__} can't go on from a {type(old).__name__}: leave --continue-from out.")
    if model.stats.scale != old.stats.scale:
        raise UserError(
            f"The training ratings are from {model.stats.scale.low:g} to {model.stats.scale.high:g} now and were from "
            f"{old.stats.scale.low:g} to {old.stats.scale.high:g}: train anew without --continue-from."
        )
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
