#!/usr/bin/env python3
"""Share a model: a trained model without its users, in three files that the Hugging Face hub understands.

    python utils/hub.py export --run runs/RUN --output my-model
    python utils/hub.py push --folder my-model --name me/my-model     # with the account of `hf auth login` or HF_TOKEN
    python generate_recommendation.py --run my-model --liked 1,3114,2355
    python generate_recommendation.py --run hf:me/my-model --liked 1,3114,2355

model.safetensors holds the tensors, config.json everything else, and README.md is the model card: what was trained on
what, how good it is, and its limits. They hold nobody's ratings, id, age or gender: people bring their own histories to
a shared model. Presets with parameters for each user (ncf, history, original), or with the weights of EASE
(autoencoder, content), from which people's ratings can be reconstructed, therefore can't be shared. Nothing that is
loaded is executed, and nothing of any other form is loaded.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import tyro
from safetensors.torch import save
from torch import Tensor

from utils import cli
from utils.cli import display_path
from utils.config import Folder, OptionalFolder, parse
from utils.download import from_hub, hub_answers
from utils.files import UserError, atomic_dir, read_json, write_json
from utils.model_card import model_card, public_name
from utils.runs import finished_run, read_checkpoint
from utils.shared_model import CARD, CONFIG, FILES, WEIGHTS, is_shared, read_shared, to_plain, without_users

HUB = "hf:"  # before the name of a model on the hub


@dataclass(frozen=True)
class Export:
    """Write a finished training as a folder to share."""

    output: Folder
    """the folder to create"""
    run: OptionalFolder = None
    """folder of a finished training (default: the newest in runs/)"""


@dataclass(frozen=True)
class Push:
    """Upload such a folder to the Hugging Face hub."""

    folder: Folder
    """a folder made by export"""
    name: Annotated[str, tyro.conf.arg(metavar="OWNER/NAME")]
    """its name on the hub"""
    private: bool = False
    """if the model is new there, show it only to its owner"""


def main() -> None:
    settings = parse(Export | Push, __doc__)
    if isinstance(settings, Push):
        print(f"The model is at {push(settings.folder, settings.name, settings.private)}.")
        return
    run = finished_run(settings.run)
    export(run, settings.output)
    size = sum(path.stat().st_size for path in settings.output.iterdir()) / 1e6
    print(f"Wrote {display_path(run)} without its users to {display_path(settings.output)}, {size:.1f} MB.")
    print("Read its model card, README.md, and the licence of the data before you share it.")


def export(run: Path, output: Path) -> None:
    """Write a run as a folder to share.

    Raises:
        UserError: the folder already exists, people's ratings could be inferred from the model, or a file of the run is
            damaged or of another version.
    """
    if output.exists():
        raise UserError(f"{output} is already there: name another folder with --output.")
    if str(output).startswith(HUB):
        raise UserError(f"{output} is a name on the hub: name a folder with --output, then upload it with push.")
    try:
        content = without_users(read_checkpoint(run / "best.pt"))
        card, features = model_card(run, content), read_json(run / CONFIG)["features"]
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{run} is damaged or of another version of this code: train again with train.py.") from error
    tensors: dict[str, Tensor] = {}
    config = {"model_type": "movie-recommendations", "content": to_plain(content, "", tensors)}
    config["features"] = features | {"encoder": public_name(features["encoder"])}  # for --new-movies
    with atomic_dir(output) as folder:
        (folder / WEIGHTS).write_bytes(save(tensors, metadata={"format": "pt"}))
        write_json(folder / CONFIG, config)
        (folder / CARD).write_text(card, encoding="utf-8", errors="replace")
        read_shared(folder)


def find_shared(name: str | None) -> Path | None:
    """The folder of a shared model, named by a path or by `hf:` and its name on the hub; None if it is none.

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
            f"There is no model {name!r} with {WEIGHTS}, here or on the Hugging Face hub: check the name and network."
        )
    return folder


def push(folder: Path, name: str, private: bool) -> str:
    """Upload a shared model to the hub, as a new model or a new version of one; returns its address.

    Raises:
        UserError: the folder holds none, or the hub can't be reached or refuses it.
    """
    from huggingface_hub import HfApi, errors

    if not is_shared(folder):
        raise UserError(f"{folder} holds no {WEIGHTS}: make it with python utils/hub.py export.")
    read_shared(folder)  # nothing else, and nothing damaged, is uploaded
    if not hub_answers():
        raise UserError("The Hugging Face hub can't be reached: check the network and try again.")
    try:
        HfApi().create_repo(name, private=private, exist_ok=True)
        HfApi().upload_folder(repo_id=name, folder_path=folder, allow_patterns=FILES)
    except (errors.HTTPError, errors.HFValidationError, OSError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"The hub refused {name} ({reason}): check the name, the network and the account of hf auth login."
        ) from error
    return f"https://huggingface.co/{name}"


if __name__ == "__main__":
    cli.run(main)
