"""The folder of a shared model: what it holds, and its reader, which loads nothing of any other form.

model.safetensors holds the tensors, config.json everything else, with {"$tensor": its name} in place of a tensor, and
{"$sparse": its indices, values and size} in place of a sparse one.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypedDict

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from typeguard import CollectionCheckStrategy, TypeCheckError, check_type

from utils.files import UserError, read_json

WEIGHTS, CONFIG, CARD = FILES = "model.safetensors", "config.json", "README.md"
TENSOR, SPARSE = "$tensor", "$sparse"
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")  # what could control a terminal
NO_SIZES = ("negatives",)  # integer settings that may be larger than any size of a model's tensors
MAX_NUMBER = 2**53  # limit of an integer in JSON
LATEST = 10**11  # seconds since 1970
SHAREABLE = "ncf-ranking, transformer or gru"


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
    """The features of the movies: float32 [n_movies, n_features], sparse [n_movies, width] for each block of names,
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
    """Ids and texts of the movies."""

    dataset: str
    movie_ids: list[int | str]
    titles: list[str]
    genres: list[str]
    years: list[int]


class Content(TypedDict):
    """A checkpoint without its users; `config` holds the settings of the class `model`."""

    model: str
    config: dict[str, Any]
    state: dict[str, Tensor]
    stats: Stats
    features: Features
    space: Space | None
    ids: Ids


def without_users(checkpoint: dict[str, Any]) -> Content:
    """The content of a checkpoint without its users.

    Raises:
        UserError: people's ratings could be inferred from what is left.
    """
    reasons = {
        "has parameters for each user": checkpoint["has_users"],
        "holds the weights of EASE, from which people's ratings can be reconstructed": "item_weights"
        in checkpoint["state"],
    }
    for reason, holds in reasons.items():
        if holds:
            raise UserError(f"{checkpoint['model']} {reason}, so it can't be shared: use a run of {SHAREABLE}.")
    parts = {"stats": Stats, "features": Features, "ids": Ids}
    return {name: checkpoint[name] for name in ("model", "config", "state", "space")} | {
        name: {key: checkpoint[name][key] for key in keys.__annotations__} for name, keys in parts.items()
    }


def with_nobody(content: Content) -> dict[str, Any]:
    """The content of a shared model in the form of a checkpoint, with no users and no ratings."""
    none, no_numbers = torch.zeros(0, dtype=torch.int64), torch.zeros(0)
    known = {"offsets": torch.zeros(1, dtype=torch.int64), "movie": none, "rating": no_numbers, "time": none}
    return content | {
        "stats": content["stats"] | {"n_users": 0, "n_user_features": 0},
        "features": content["features"] | {"user_features": torch.zeros(0, 0)},
        "ids": content["ids"] | {"user_ids": []},
        "known": known | {"part": none.to(torch.uint8)},
    }


# --- as files ------------------------------------------------------------------------------------


def to_plain(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """`value` in a form for JSON; its tensors go into `tensors`, named after their places."""
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
    """What `to_plain` was given, with lists for tuples.

    Raises:
        ValueError: a number is not finite or too large, or a text holds control characters.
    """
    if isinstance(value, list):
        return [from_plain(one, tensors) for one in value]
    if isinstance(value, dict) and TENSOR in value:
        return tensors[value[TENSOR]].clone()  # in memory of its own, so that products are the same as elsewhere
    if isinstance(value, dict) and SPARSE in value:
        parts = from_plain(value[SPARSE], tensors)
        sparse = torch.sparse_coo_tensor(parts["indices"], parts["values"], parts["size"], check_invariants=True)
        return sparse.coalesce()
    if isinstance(value, dict):
        return {from_plain(key, tensors): from_plain(one, tensors) for key, one in value.items()}
    if isinstance(value, str) and CONTROL.search(value):
        raise ValueError("a text holds control characters")
    if isinstance(value, int | float) and not abs(value) < MAX_NUMBER:  # nor is NaN
        raise ValueError("a number is not finite, or too large")
    return value


def is_shared(folder: Path) -> bool:
    return (folder / WEIGHTS).is_file()


def read_shared(folder: Path) -> dict[str, Any]:
    """The content of a shared model in the form of a checkpoint without users.

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
        raise UserError(f"{folder} holds no model that can be read ({reason}): download or export it again.") from error


def problems(content: Content, tensors: dict[str, Tensor]) -> Iterator[str]:
    """The inconsistencies of a content whose types are right."""
    stats, ids, space = content["stats"], content["ids"], content["space"]
    n, scale = stats["n_movies"], stats["scale"]
    if not all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
        yield "some of its numbers are not finite"
    largest = max([len(tensors), *(size for tensor in tensors.values() for size in tensor.shape)])
    sizes = [value for name, value in content["config"].items() if isinstance(value, int) and name not in NO_SIZES]
    if any(size > largest for size in sizes):
        yield "its settings are for a larger model than its tensors"
    if n < 1 or any(len(ids[name]) != n for name in ("movie_ids", "titles", "genres", "years")):
        yield "it does not have one id, title, list of genres and year for each movie"
    if len(set(map(str, ids["movie_ids"]))) != n or not all(0 <= year <= 9999 for year in ids["years"]):
        yield "it has duplicate movie ids, or an invalid year"
    if not (scale["low"] <= scale["high"] and 0 <= stats["newest"] <= LATEST and 0 <= stats["longest_gap"] <= LATEST):
        yield "its range of ratings or of times is invalid"
    shapes = {"features": (n, sum(block["width"] for block in stats["blocks"])), "year": (n,), "count": (n,)}
    of_movies = [(content["features"][name], shape) for name, shape in shapes.items()]
    if len(content["features"]["names"]) != len(stats["names"]):
        yield "its names do not match its blocks"
    pairs = zip(content["features"]["names"], stats["names"], strict=False)
    of_movies += [(matrix, (n, block["width"])) for matrix, block in pairs]
    if any(tuple(tensor.shape) != shape for tensor, shape in of_movies):
        yield "its features are not one row of the right width for each movie"
    types = {"features": torch.float32, "year": torch.float32, "count": torch.int64}
    if any(content["features"][name].dtype != kind for name, kind in types.items()):
        yield "its features are of the wrong number type"
    for one in space["scales"] if space else []:
        if any(tuple(one[name].shape) != (one["width"],) for name in ("center", "scale")):
            yield f"the scale of {one['name']} has the wrong width"
        if len(one["vocabulary"]) not in (0, one["width"]):
            yield f"the words of {one['name']} do not match its width"
