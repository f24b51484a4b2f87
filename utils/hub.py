#!/usr/bin/env python3
"""A model to share: a trained model without its users, in three files that the Hugging Face hub knows.

    python utils/hub.py export --run runs/<id> --output my-model
    python utils/hub.py push --folder my-model --name me/my-model           # as who `hf auth login` or HF_TOKEN says
    python generate_recommendation.py --run my-model --liked 1,3114,2355
    python generate_recommendation.py --run hf:me/my-model --liked 1,3114,2355

model.safetensors holds all numbers, config.json all words, README.md is the model card: what was trained on what, how
good it is, and its limits. Nobody's ratings, id, age or gender are in them, so that a shared model serves people by the
histories that they bring. So presets can't be shared that have numbers of each user (ncf, history, original), or the
weights of EASE (autoencoder, content), from which people's ratings can be computed back. Nothing that is loaded is
executed, and nothing of another form than what is written here is loaded.
"""

import math
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypedDict

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import torch
import tyro
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor
from typeguard import CollectionCheckStrategy, TypeCheckError, check_type

from utils import cli
from utils.cli import display_path
from utils.config import Folder, OptionalFolder, parse
from utils.download import from_hub, hub_answers
from utils.files import UserError, atomic_dir, read_json, write_json
from utils.model_card import model_card, public_name
from utils.runs import finished_run, read_checkpoint

WEIGHTS, CONFIG, CARD = FILES = "model.safetensors", "config.json", "README.md"
HUB = "hf:"  # before the name of a model on the hub
TENSOR, SPARSE = "$tensor", "$sparse"  # the keys that stand in config.json for numbers in model.safetensors
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")  # what would command a screen
LARGEST = 2**53  # that a whole number in JSON can be
LATEST = 10**11  # seconds since 1970
SHAREABLE = "ncf-ranking, transformer or gru"


@dataclass(frozen=True)
class Export:
    """Write a finished training as a folder to share."""

    output: Folder
    """the folder to make"""
    run: OptionalFolder = None
    """folder of a finished training (default: the newest in runs/)"""


@dataclass(frozen=True)
class Push:
    """Put such a folder on the Hugging Face hub."""

    folder: Folder
    """a folder made by export"""
    name: Annotated[str, tyro.conf.arg(metavar="OWNER/NAME")]
    """what it is called there"""
    private: bool = False
    """let nobody but the owner see it, if it is new there"""


def main() -> None:
    settings = parse(Export | Push, __doc__)
    if isinstance(settings, Push):
        print(f"It is at {push(settings.folder, settings.name, settings.private)}.")
        return
    run = finished_run(settings.run)
    export(run, settings.output)
    size = sum(path.stat().st_size for path in settings.output.iterdir()) / 1e6
    print(f"Wrote {display_path(run)} without its users to {display_path(settings.output)}, {size:.1f} MB.")
    print("Read README.md there, its model card, and the licence of the data before you pass it on.")


# --- what a folder holds -------------------------------------------------------------------------


class Block(TypedDict):
    name: str
    kind: str
    width: int


class Range(TypedDict):
    low: float
    high: float


class Stats(TypedDict):
    """Statistics of the training data."""

    n_movies: int
    blocks: list[Block]
    names: list[Block]
    mean_rating: float
    scale: Range
    newest: int
    longest_gap: int
    has_years: bool


class Features(TypedDict):
    """What is known of the movies: float32 [n_movies, n_features], sparse [n_movies, width] of each block of names,
    float32 [n_movies] and int64 [n_movies]."""

    features: Tensor
    names: list[Tensor]
    year: Tensor
    count: Tensor


class BlockScale(Block):
    vocabulary: list[str]
    center: Tensor
    scale: Tensor


class Space(TypedDict):
    """How movies get their features."""

    scales: list[BlockScale]
    has_year: bool
    unit_titles: bool
    popularity: list[Tensor] | None


class Ids(TypedDict):
    """Ids and words of the movies."""

    dataset: str
    movie_ids: list[int | str]
    titles: list[str]
    genres: list[str]
    years: list[int]


class Content(TypedDict):
    """A checkpoint without its users; `config` are the settings of the class `model`."""

    model: str
    config: dict[str, Any]
    state: dict[str, Tensor]
    stats: Stats
    features: Features
    space: Space | None
    ids: Ids


def without_users(checkpoint: dict[str, Any]) -> Content:
    """What a checkpoint holds without its users.

    Raises:
        UserError: people's ratings could be told from what is left.
    """
    reasons = {
        "has numbers of each user": checkpoint["has_users"],
        "holds the weights of EASE, from which people's ratings can be computed back": "item_weights"
        in checkpoint["state"],
    }
    for reason, holds in reasons.items():
        if holds:
            raise UserError(f"{checkpoint['model']} {reason}, so it is not to be shared: take a run of {SHAREABLE}.")
    parts = {"stats": Stats, "features": Features, "ids": Ids}
    return {name: checkpoint[name] for name in ("model", "config", "state", "space")} | {
        name: {key: checkpoint[name][key] for key in keys.__annotations__} for name, keys in parts.items()
    }


def with_nobody(content: Content) -> dict[str, Any]:
    """The content of a shared model as that of a checkpoint: with no users, and no ratings."""
    none, no_numbers = torch.zeros(0, dtype=torch.int64), torch.zeros(0)
    known = {"offsets": torch.zeros(1, dtype=torch.int64), "movie": none, "rating": no_numbers, "time": none}
    return content | {
        "stats": content["stats"] | {"n_users": 0, "n_user_features": 0},
        "features": content["features"] | {"user_features": torch.zeros(0, 0)},
        "ids": content["ids"] | {"user_ids": []},
        "known": known | {"part": none.to(torch.uint8)},
    }


# --- writing and reading it ----------------------------------------------------------------------


def export(run: Path, output: Path) -> None:
    """Write a run as a folder to share.

    Raises:
        UserError: the folder is already there, people's ratings could be told from the model, or a file of the run is
            damaged or of another version.
    """
    if output.exists():
        raise UserError(f"{output} is already there: name another folder with --output.")
    if str(output).startswith(HUB):
        raise UserError(f"{output} is a name on the hub: name a folder with --output, which push puts there.")
    try:
        content = without_users(read_checkpoint(run / "best.pt"))
        card, features = model_card(run, content), read_json(run / CONFIG)["features"]
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{run} is damaged or of another version of this code: train anew with train.py.") from error
    tensors: dict[str, Tensor] = {}
    config = {"model_type": "movie-recommendations", "content": to_plain(content, "", tensors)}
    config["features"] = features | {"encoder": public_name(features["encoder"])}  # for --new-movies
    with atomic_dir(output) as folder:
        (folder / WEIGHTS).write_bytes(save(tensors, metadata={"format": "pt"}))
        write_json(folder / CONFIG, config)
        (folder / CARD).write_text(card, encoding="utf-8", errors="replace")
        read_shared(folder)


def to_plain(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """`value` as JSON takes it; its tensors go into `tensors`, under the names of their places."""
    if isinstance(value, Tensor) and value.is_sparse:
        parts = {"indices": value.indices(), "values": value.values(), "size": list(value.shape)}
        return {SPARSE: to_plain(parts, name, tensors)}
    if isinstance(value, Tensor):
        tensors[name] = value.contiguous()
        return {TENSOR: name}
    if isinstance(value, dict):
        return {key: to_plain(one, f"{name}.{key}".lstrip("."), tensors) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(one, f"{name}.{k}", tensors) for k, one in enumerate(value)]
    return CONTROL.sub(" ", value) if isinstance(value, str) else value


def from_plain(value: Any, tensors: dict[str, Tensor]) -> Any:
    """What `to_plain` was given, but for tuples, which are lists.

    Raises:
        ValueError: a number is not finite or too large, or a text would command a screen.
    """
    if isinstance(value, list):
        return [from_plain(one, tensors) for one in value]
    if isinstance(value, dict) and TENSOR in value:
        return tensors[value[TENSOR]].clone()  # at an address of its own: products are then the same as elsewhere
    if isinstance(value, dict) and SPARSE in value:
        parts = from_plain(value[SPARSE], tensors)
        sparse = torch.sparse_coo_tensor(parts["indices"], parts["values"], parts["size"], check_invariants=True)
        return sparse.coalesce()
    if isinstance(value, dict):
        return {from_plain(key, tensors): from_plain(one, tensors) for key, one in value.items()}
    if isinstance(value, str) and CONTROL.search(value):
        raise ValueError("a text holds control characters")
    if isinstance(value, int | float) and not (math.isfinite(value) and abs(value) < LARGEST):
        raise ValueError("a number is not finite, or too large")
    return value


def is_shared(folder: Path) -> bool:
    return (folder / WEIGHTS).is_file()


def read_shared(folder: Path) -> dict[str, Any]:
    """The content of a shared model as that of a checkpoint without users.

    Raises:
        UserError: a file is missing, damaged, of another form or does not fit the other.
    """
    try:
        tensors = load_file(folder / WEIGHTS)
        content = from_plain(read_json(folder / CONFIG)["content"], tensors)
        check_type(content, Content, collection_check_strategy=CollectionCheckStrategy.ALL_ITEMS)
        if problem := next(problems(content, tensors), None):
            raise ValueError(problem)
        return with_nobody(content)
    except (SafetensorError, TypeCheckError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise UserError(f"{folder} holds no model that can be read ({reason}): fetch or export it anew.") from error


def problems(content: Content, tensors: dict[str, Tensor]) -> Iterator[str]:
    """What does not fit in a content whose types are right."""
    stats, ids, space = content["stats"], content["ids"], content["space"]
    n, scale = stats["n_movies"], stats["scale"]
    if not all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
        yield "some of its numbers are not finite"
    largest = max([len(tensors), *(size for tensor in tensors.values() for size in tensor.shape)])
    if any(isinstance(value, int) and value > largest for value in content["config"].values()):
        yield "its settings are of a larger model than its numbers"
    if n < 1 or any(len(ids[name]) != n for name in ("movie_ids", "titles", "genres", "years")):
        yield "its ids, titles, genres or years are not one for each movie"
    if len(set(map(str, ids["movie_ids"]))) != n or not all(0 <= year <= 9999 for year in ids["years"]):
        yield "its ids are not of one movie each, or a year is none"
    if not (scale["low"] <= scale["high"] and 0 <= stats["newest"] <= LATEST and 0 <= stats["longest_gap"] <= LATEST):
        yield "its ratings or times are of no such range"
    shapes = {"features": (n, sum(block["width"] for block in stats["blocks"])), "year": (n,), "count": (n,)}
    of_movies = [(content["features"][name], shape) for name, shape in shapes.items()]
    if len(content["features"]["names"]) != len(stats["names"]):
        yield "its names are of other blocks"
    pairs = zip(content["features"]["names"], stats["names"], strict=False)
    of_movies += [(matrix, (n, block["width"])) for matrix, block in pairs]
    if any(tuple(tensor.shape) != shape for tensor, shape in of_movies):
        yield "its features are not one row for each movie"
    types = {"features": torch.float32, "year": torch.float32, "count": torch.int64}
    if any(content["features"][name].dtype != kind for name, kind in types.items()):
        yield "its features are numbers of another type"
    for one in space["scales"] if space else []:
        if any(tuple(one[name].shape) != (one["width"],) for name in ("center", "scale")):
            yield f"the scale of {one['name']} is of another width"
        if len(one["vocabulary"]) not in (0, one["width"]):
            yield f"the words of {one['name']} are not as many as its width"


# --- the hub -------------------------------------------------------------------------------------


def find_shared(name: str | None) -> Path | None:
    """The folder of a shared model by its folder's name or, after `hf:`, the hub's; None where it is none.

    Raises:
        UserError: there is no such model, or neither the hub nor an earlier copy can be reached.
    """
    if name is None or not name.startswith(HUB):
        return Path(name) if name is not None and is_shared(Path(name)) else None
    name = name.removeprefix(HUB)
    folder = from_hub(name, "model", FILES, offline=False) if hub_answers() else None
    folder = folder or from_hub(name, "model", FILES, offline=True)
    if folder is None or not is_shared(folder):
        raise UserError(
            f"There is no model {name!r} with {WEIGHTS}, here or on the Hugging Face hub: check name and network."
        )
    return folder


def push(folder: Path, name: str, private: bool) -> str:
    """Put a shared model on the hub, as a new model or a new version of one; returns its address.

    Raises:
        UserError: the folder holds none, or the hub can't be reached or refuses it.
    """
    from huggingface_hub import HfApi, errors

    if not is_shared(folder):
        raise UserError(f"{folder} holds no {WEIGHTS}: make it with python utils/hub.py export.")
    read_shared(folder)  # nothing else, and nothing damaged, is put there
    if not hub_answers():
        raise UserError("The Hugging Face hub can't be reached: try again with a network.")
    try:
        HfApi().create_repo(name, private=private, exist_ok=True)
        HfApi().upload_folder(repo_id=name, folder_path=folder, allow_patterns=FILES)
    except (errors.HTTPError, errors.HFValidationError, OSError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"The hub did not take {name} ({reason}): check the name, the network and who hf auth login says you are."
        ) from error
    return f"https://huggingface.co/{name}"


if __name__ == "__main__":
    cli.run(main)
