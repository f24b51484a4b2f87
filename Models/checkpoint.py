"""Checkpoints: saving and loading weights, ids and ratings, as plain types and tensors."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from Models.configs import MODELS
from Models.Dataset import Model
from Models.inputs import DataStats, FeatureBlock, ModelInputs, RatingScale, UnsuitableData
from Models.ratings_data import RatingsData
from Models.sequences import History
from utils.cli import is_out_of_memory
from utils.config import from_json
from utils.files import UserError, atomic_write, note
from utils.runs import read_checkpoint
from utils.shared_model import read_shared
from utils.splits import TRAIN, Split


@dataclass(frozen=True)
class IdMaps:
    """The ids, titles, genres and years behind a model's indices."""

    dataset: str
    user_ids: list  # int or str, as in the user's files
    movie_ids: list
    titles: list[str]
    genres: list[str]  # "Action|Comedy"
    years: list[int]  # of release, 0 where unknown
    n_new: int = 0  # number of movies, the last ones, that were added to a finished training


@dataclass(frozen=True)
class AllRatings:
    """All ratings of the data set, of every part of the split, by user and time, as models see them.

    part: TRAIN, VAL or TEST for each rating, uint8 [n]
    """

    history: History
    part: Tensor

    def training(self) -> History:
        """The training ratings alone."""
        mask, h = self.part == TRAIN, self.history
        columns = (column[mask] for column in (h.users(), h.movie, h.rating, h.time))
        return History.of(*columns, len(h.offsets) - 1)


@dataclass(frozen=True)
class SavedModel:
    """What a checkpoint holds for recommending, loaded once."""

    model: Model
    ids: IdMaps
    ratings: AllRatings
    inputs: ModelInputs


class Unsuitable(UserError):
    """The data does not suit the model."""


def build_model(config: Any, stats: DataStats, inputs: ModelInputs) -> Model:
    """A new model with these settings.

    Raises:
        Unsuitable: the data does not suit it.
    """
    try:
        return MODELS[type(config)](config, stats, inputs)
    except UnsuitableData as error:
        raise Unsuitable(str(error)) from error


def place(model: Model, device: torch.device) -> Model:
    """The model on this device or, if the device lacks operations it needs, on the CPU, with a note."""
    if device.type in model.unsupported_devices:
        note(f"{type(model).__name__} needs operations that {device.type} lacks: it runs on the CPU.")
        device = torch.device("cpu")
    return model.to(device)


def describe_data(data: RatingsData, split: Split) -> dict[str, Any]:
    """Ids, titles and all ratings of a data set, with each rating's part of the split."""
    history = data.history()
    part = torch.from_numpy(split.parts(len(data.user))[data.by_user_and_time()])
    ratings = vars(history) | {"movie": history.movie.int(), "part": part}  # int32: these are most of a checkpoint
    ids = IdMaps(
        dataset=data.name,
        user_ids=data.user_ids,
        movie_ids=data.movies["movie"].tolist(),
        titles=data.movies["title"].tolist(),
        genres=data.movies["genres"].str.join("|").tolist(),
        years=data.movies["year"].fillna(0).astype(int).tolist(),
    )
    return {"ids": vars(ids), "known": ratings}


def describe_model(model: Model, inputs: ModelInputs) -> dict[str, Any]:
    """What a model is built from, without the training ratings."""
    return {
        "model": type(model).__name__,
        "config": asdict(model.config),
        "stats": asdict(model.stats),
        "features": {name: getattr(inputs, name) for name in ("features", "names", "year", "user_features", "count")},
        "space": inputs.space,
        "has_users": not hasattr(model, "tables") or "user" in model.tables(),  # has parameters for each user
    }


def not_in_tables(tables: dict[str, list[Tensor]], model: Model) -> list[Tensor]:
    """The parameters of a model that are not among these tables."""
    of_rows = {table.data_ptr() for kind in tables.values() for table in kind}
    return [one for one in model.parameters() if one.data_ptr() not in of_rows]


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write `content`, which must be plain types and tensors, atomically.

    `load_model` needs the weights as `state`, and what `describe_data` and `describe_model` return.

    Raises:
        OSError: the disk is full.
    """
    with atomic_write(path) as temporary:
        try:
            torch.save(content, temporary)
        except RuntimeError as error:  # what PyTorch raises on a full disk
            raise OSError(None, "it could not be written whole", str(path)) from error


def ids_and_ratings(content: dict[str, Any]) -> tuple[IdMaps, AllRatings]:
    """What `describe_data` wrote into a checkpoint."""
    columns = content["known"] | {"movie": content["known"]["movie"].long()}
    return IdMaps(**content["ids"]), AllRatings(part=columns.pop("part"), history=History(**columns))


def load_ratings(path: Path) -> tuple[IdMaps, AllRatings]:
    """The ids and ratings of a checkpoint, without its model.

    Raises:
        UserError: as `load_model`.
    """
    try:
        return ids_and_ratings(read_checkpoint(path))
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} does not fit this code: train again with python train.py.") from error


def load_model(path: Path | str, device: torch.device) -> SavedModel:
    """The model of a checkpoint, or of a shared model's folder, ready to score on `device`, with ids and ratings.

    Raises:
        UserError: as `read_checkpoint`, or the checkpoint is from another version of this code.
    """
    path = Path(path)
    content = read_shared(path) if path.is_dir() else read_checkpoint(path)
    try:
        classes = {model.__name__: config for config, model in MODELS.items()}
        stats = content["stats"] | {"scale": RatingScale(**content["stats"]["scale"])}
        stats |= {part: tuple(FeatureBlock(**block) for block in stats[part]) for part in ("blocks", "names")}
        ids, ratings = ids_and_ratings(content)
        solved = content["state"].get("item_weights")
        inputs = ModelInputs(
            **content["features"], training=ratings.training, space=content["space"], item_weights=solved
        )
        config = from_json(classes[content["model"]](), content["config"])
        model = build_model(config, DataStats(**stats), inputs)
        model.load_state_dict(content["state"])
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        remedy = "fetch another version of it" if path.is_dir() else "train again with python train.py"
        raise UserError(f"{path} does not fit this code ({reason[:200]}): {remedy}.") from error
    return SavedModel(place(model, device).eval(), ids, ratings, inputs)
