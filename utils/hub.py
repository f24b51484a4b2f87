#!/usr/bin/env python3
"""A model to share: a trained model without its users, in three files that the Hugging Face hub knows.

    python utils/hub.py export --run runs/<id> --output my-model
    python utils/hub.py push --folder my-model --name me/my-model           # as who `hf auth login` or HF_TOKEN says
    python generate_recommendation.py --run my-model --liked 1,3114,2355
    python generate_recommendation.py --run hf:me/my-model --liked 1,3114,2355

model.safetensors holds all numbers, config.json all words, README.md is the model card: what was trained on what, how
good it is, and its limits. Nobody's ratings, id, age or gender are in them, so that a shared model serves people by the
histories that they bring. Presets with a vector of each user (ncf, history, original) can't be shared. Nothing that is
loaded is executed.
"""

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import torch
import tyro
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from utils import cli
from utils.cli import display_path
from utils.config import Folder, OptionalFolder, parse
from utils.download import from_hub, hub_answers
from utils.files import UserError, atomic_dir, read_json, write_json
from utils.model_card import model_card
from utils.runs import finished_run, read_checkpoint

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
HUB = "hf:"  # before the name of a model on the hub
OF_USERS = ("user_features",)  # of a checkpoint's features
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
TENSOR, SPARSE = "$tensor", "$sparse"  # the keys that stand in config.json for numbers in model.safetensors


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


# --- a run as a folder to share ------------------------------------------------------------------


def export(run: Path, output: Path) -> None:
    """Write a run as a folder to share.

    Raises:
        UserError: the folder is already there, or the model has a vector of each user.
    """
    if output.exists():
        raise UserError(f"{output} is already there: name another folder with --output.")
    content = without_users(read_checkpoint(run / "best.pt"))
    tensors: dict[str, Tensor] = {}
    # of config.json, what --new-movies needs
    config = {"model_type": "movie-recommendations", "features": read_json(run / CONFIG)["features"]}
    config["features"]["encoder"] = public_name(config["features"]["encoder"])
    config["content"] = to_plain(content, "", tensors)
    with atomic_dir(output) as folder:
        (folder / WEIGHTS).write_bytes(save(tensors, metadata={"format": "pt"}))
        write_json(folder / CONFIG, config)
        (folder / CARD).write_text(model_card(run, content), encoding="utf-8")


def without_users(content: dict[str, Any]) -> dict[str, Any]:
    """What a checkpoint holds without its users.

    Raises:
        UserError: the model has a vector of each user.
    """
    if content.get("has_users", True):
        raise UserError(
            f"{content['model']} has a vector of each user, which is not to be passed on: take a run of ncf-ranking, "
            "autoencoder, content, transformer or gru."
        )
    return {
        **{name: content[name] for name in ("state", "model", "config", "space")},
        "stats": content["stats"] | {"n_users": 0, "n_user_features": 0},
        "features": {name: value for name, value in content["features"].items() if name not in OF_USERS},
        "ids": {name: value for name, value in content["ids"].items() if name != "user_ids"},
    }


def with_nobody(content: dict[str, Any]) -> dict[str, Any]:
    """The content of a shared model as that of a checkpoint: with no users, and no ratings."""
    none, no_numbers = torch.zeros(0, dtype=torch.int64), torch.zeros(0)
    known = {"offsets": torch.zeros(1, dtype=torch.int64), "movie": none, "rating": no_numbers, "time": none}
    return content | {
        "features": content["features"] | dict.fromkeys(OF_USERS, torch.zeros(0, 0)),
        "ids": content["ids"] | {"user_ids": []},
        "known": known | {"part": none.to(torch.uint8)},
    }


def public_name(encoder: str) -> str:
    """An encoder's name, of a folder without where it is on this machine."""
    return Path(encoder).name if Path(encoder).is_dir() else encoder


# --- the files -----------------------------------------------------------------------------------


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
    return value


def from_plain(value: Any, tensors: dict[str, Tensor]) -> Any:
    """What `to_plain` was given, but for tuples, which are lists."""
    if isinstance(value, list):
        return [from_plain(one, tensors) for one in value]
    if not isinstance(value, dict):
        return value
    if TENSOR in value:
        return tensors[value[TENSOR]].clone()  # at an address of its own: products are then the same as elsewhere
    if SPARSE in value:
        parts = from_plain(value[SPARSE], tensors)
        sparse = torch.sparse_coo_tensor(parts["indices"], parts["values"], parts["size"], check_invariants=True)
        return sparse.coalesce()
    return {key: from_plain(one, tensors) for key, one in value.items()}


def is_shared(folder: Path) -> bool:
    return (folder / WEIGHTS).is_file()


def read_shared(folder: Path) -> dict[str, Any]:
    """The content of a shared model as that of a checkpoint without users.

    Raises:
        UserError: a file is missing, damaged or does not fit the other.
    """
    try:
        tensors = load_file(folder / WEIGHTS)
        if not all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
            raise ValueError("some of its numbers are not finite")
        content = from_plain(read_json(folder / CONFIG)["content"], tensors)
        check_words(content["ids"], content["stats"]["n_movies"])
        return with_nobody(content)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{folder} holds no model that can be read ({reason}): fetch or export it anew.") from error


def check_words(ids: dict[str, Any], n_movies: int) -> None:
    """Raises ValueError where ids, titles, genres or years are not one for each movie, or would command a screen."""
    for name, kinds in {"movie_ids": int | str, "titles": str, "genres": str, "years": int}.items():
        if len(ids[name]) != n_movies or not all(isinstance(value, kinds) for value in ids[name]):
            raise ValueError(f"its {name} are not one for each movie")
    if CONTROL.search(" ".join(map(str, [ids["dataset"], *ids["movie_ids"], *ids["titles"], *ids["genres"]]))):
        raise ValueError("its titles hold control characters")


# --- the hub -------------------------------------------------------------------------------------


def find_shared(name: str | None) -> Path | None:
    """The folder of a shared model by its folder's name or, after `hf:`, the hub's; None where it is none.

    Raises:
        UserError: there is no such model, or neither the hub nor an earlier copy can be reached.
    """
    if name is None or not name.startswith(HUB):
        return Path(name) if name is not None and is_shared(Path(name)) else None
    name = name.removeprefix(HUB)
    folder = from_hub(name, "model", [WEIGHTS, CONFIG, CARD], offline=not hub_answers())
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
    if not hub_answers():
        raise UserError("The Hugging Face hub can't be reached: try again with a network.")
    try:
        HfApi().create_repo(name, private=private, exist_ok=True)
        HfApi().upload_folder(repo_id=name, folder_path=folder, allow_patterns=[WEIGHTS, CONFIG, CARD])
    except (errors.HfHubHTTPError, errors.HFValidationError, errors.LocalTokenNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"The hub did not take {name} ({reason}): log in with hf auth login as its owner.") from error
    return f"https://huggingface.co/{name}"


if __name__ == "__main__":
    cli.run(main)
