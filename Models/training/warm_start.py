"""Warm start: continue from a finished run when there are more ratings, users and movies than it knew."""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from Models.checkpoint import AllRatings, IdMaps, SavedModel, load_model, load_ratings, not_in_tables
from Models.configs import saved_config
from Models.Dataset import Model
from Models.ratings_data import RatingsData
from utils import runs
from utils.files import UserError, note, read_json
from utils.splits import TEST, TRAIN, VAL, Split

# What determines the meaning of the features' columns, and its name in messages.
SAME_FEATURES = {
    "encoder_sha256": "encoder",
    "pooling": "pooling",
    "precision": "precision",
    "bert_dim": "width",
    "genres": "list of genres",
    "text": "text",
    "blocks": "list of blocks",
}
MAX_OUTSIDE = 0.25  # share of a scale's width by which new ratings may lie outside
MAX_RENAMED = 0.1  # share of the movies whose title may have changed
UNKNOWN = TEST + 1  # the part of a row that the earlier run lacks
ANEW = "train again without --continue-from"


@dataclass(frozen=True)
class Earlier:
    """The run to continue from, and the ids and ratings of all runs of its lineage: itself, and those before it."""

    run: Path
    saved: SavedModel
    lineage: list[tuple[IdMaps, AllRatings]]


def load_earlier(run: Path, data: RatingsData) -> Earlier:
    """The run to continue from on this data; prints how much of what it knew is in this data.

    Raises:
        UserError: a run of its lineage is missing, or it was trained on other features, movies or demographics.
    """
    saved = load_model(runs.finished_run(run) / "best.pt", torch.device("cpu"))
    before = [load_ratings(one / "best.pt") for one in _lineage(saved_config(run).run.continue_from)]
    earlier, record = Earlier(run, saved, [(saved.ids, saved.ratings), *before]), read_json(run / "config.json")
    now, then = asdict(data.features.info), record.get("features", {})
    if changed := [name for name in SAME_FEATURES if now[name] != then.get(name)]:
        raise UserError(f"The {SAME_FEATURES[changed[0]]} of the features is not that of {run}: {ANEW}.")
    if columns_of(saved.inputs.space["scales"]) != columns_of(data.features.blocks(), saved.inputs.space["scales"]):
        raise UserError(f"The columns of the metadata, or their categories, are not those of {run}: {ANEW}.")
    if hasattr(saved.model, "user_features") and record.get("user_features") != list(data.user_feature_names):
        raise UserError(f"The genders, age groups or occupations are not those of {run}: {ANEW}.")
    users = _places(saved.ids.user_ids, data.user_ids)
    movies = _places(saved.ids.movie_ids, data.movies["movie"].tolist())
    n_ratings = (known_parts(saved.ids, saved.ratings, data) != UNKNOWN).sum()
    titles = data.movies["title"].to_numpy()[movies[movies >= 0]]
    renamed = titles != np.array(saved.ids.titles, dtype=object)[movies >= 0]
    if not len(titles) or renamed.mean() > MAX_RENAMED:
        example = f", such as {titles[renamed][0]!r}" if renamed.any() else ""
        raise UserError(f"{data.name} holds other movies than {run} was trained with{example}: {ANEW}.")
    print(
        f"Of what {run.name} knew, {data.name} has {(users >= 0).sum():,} of {len(users):,} users, "
        f"{(movies >= 0).sum():,} of {len(movies):,} movies and {n_ratings:,} of {len(saved.ratings.part):,} ratings."
    )
    return earlier


def columns_of(blocks: Sequence, like: Sequence | None = None) -> list[tuple]:
    """What the columns of the features mean, in their order; only of the blocks that `like` has."""
    rows = [one if isinstance(one, dict) else vars(one) for one in blocks]
    wanted = {one["name"] for one in like or rows}
    kept = [row for row in rows if row["name"] in wanted and row["kind"] != "names"]
    return [(row["name"], row["kind"], tuple(row["vocabulary"])) for row in kept]


def _lineage(run: Path | None) -> Iterator[Path]:
    while run:
        yield runs.finished_run(run)
        run = saved_config(run).run.continue_from


def _places(of: Sequence, among: Sequence) -> np.ndarray:
    """The position of each id among others, -1 if absent; ids are compared as strings."""
    return pd.Index([str(one) for one in among]).get_indexer([str(one) for one in of])


def known_parts(ids: IdMaps, ratings: AllRatings, data: RatingsData) -> np.ndarray:
    """The part that each rating had in a training with these ids and ratings: TRAIN, VAL, TEST or UNKNOWN, [n]."""
    history = ratings.history
    user = _places(ids.user_ids, data.user_ids)[history.users().numpy()]
    movie = _places(ids.movie_ids, data.movies["movie"].tolist())[history.movie.numpy()]
    there = (user >= 0) & (movie >= 0)
    pairs = user[there] * len(data.movies) + movie[there]
    part = pd.Series(ratings.part.numpy()[there].astype(np.int64), pairs)
    return part.reindex(data.user * len(data.movies) + data.movie, fill_value=UNKNOWN).to_numpy()


def split_after(earlier: Earlier, data: RatingsData, split: Split) -> Split:
    """The split, with no earlier training or validation row in the test: rows that trained in a run of the lineage
    train, and rows that validated validate or train.

    Raises:
        UserError: nothing is left to test or, if the split has a validation, to validate.
    """
    now = split.parts(len(data.user))
    part = np.minimum.reduce([now, *(known_parts(*one, data) for one in earlier.lineage)])  # TRAIN is the least
    kept = {which: rows[part[rows] == which] for which, rows in enumerate((split.train, split.val, split.test))}
    moved = {which: np.flatnonzero((part == which) & (now != which)) for which in (TRAIN, VAL)}
    val = np.concatenate([kept[VAL], moved[VAL]])
    for name, before, rows in (("test", split.test, kept[TEST]), ("validate", split.val, val)):
        if len(before) and not len(rows):
            raise UserError(
                f"{earlier.run} knew so many ratings of {data.name} that none is left to {name}: add newer ones, "
                f"continue from a run with a test, or {ANEW}."
            )
    words = f"{split.protocol}; {(part < now).sum():,} rows moved towards training, which earlier runs knew"
    train = np.concatenate([kept[TRAIN], moved[TRAIN]])
    return dataclasses.replace(split, train=train, val=val, test=kept[TEST], protocol=words)


def on_scale_of(earlier: Earlier, data: RatingsData, wanted: tuple[float, float] | None) -> RatingsData:
    """The data on the scale of the earlier training, which its weights depend on.

    Args:
        wanted: --scale

    Raises:
        UserError: the ratings are clearly on another scale, or another one is wanted.
    """
    scale = earlier.saved.model.stats.scale
    if wanted and wanted != (scale.low, scale.high):
        raise UserError(
            f"--scale {wanted[0]:g} {wanted[1]:g} is not the scale of {earlier.run}, {scale.low:g} to {scale.high:g}: "
            f"leave it out, or {ANEW}."
        )
    low, high = float(data.rating.min()), float(data.rating.max())
    words = f"The ratings of {data.name} are from {low:g} to {high:g} and were from {scale.low:g} to {scale.high:g}"
    outside = max(scale.low - low, high - scale.high)
    if outside > (scale.high - scale.low) * MAX_OUTSIDE:
        raise UserError(f"{words}, which is another scale: {ANEW}.")
    if outside > 0:
        note(f"{words}: the model keeps its scale, so that no prediction lies outside it.")
    return dataclasses.replace(data, scale=scale)


@torch.no_grad()
def start_from(earlier: Earlier, data: RatingsData, model: Model) -> None:
    """Copy the earlier model's weights, users and movies by their ids; new ones keep their initial values.

    Raises:
        UserError: the two models differ in type or sizes.
    """
    ids, old = earlier.saved.ids, earlier.saved.model
    if type(model) is not type(old) or not hasattr(model, "tables"):
        raise UserError(
            f"A {type(model).__name__} can't continue from a {type(old).__name__}: leave --continue-from out."
        )
    tables, old_tables = model.tables(), old.tables()
    row = {"user": _places(data.user_ids, ids.user_ids), "movie": _places(data.movies["movie"].tolist(), ids.movie_ids)}
    kinds = [kind for kind in row if kind in tables]  # tables of other rows start afresh
    mine, others = not_in_tables(tables, model), not_in_tables(old_tables, old)
    sizes, old_sizes = ([part.shape[1:] for kind in kinds for part in one[kind]] for one in (tables, old_tables))
    same_blocks = model.stats.blocks == old.stats.blocks
    if not same_blocks or [part.shape for part in mine] + sizes != [part.shape for part in others] + old_sizes:
        raise UserError(f"The model has other sizes than that of {earlier.run}: leave its settings out, or {ANEW}.")
    for part, other in zip(mine, others, strict=True):
        part.copy_(other)
    for kind in kinds:
        known = row[kind] >= 0
        for table, old_table in zip(tables[kind], old_tables[kind], strict=True):
            table[known] = old_table[row[kind][known]].to(table.device)
