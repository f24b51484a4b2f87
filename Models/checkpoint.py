"""Checkpoints: all that scoring needs, as plain types and tensors, saved and rebuilt in one place."""

import pickle
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from Models.Autoencoder import Autoencoder, AutoencoderConfig
from Models.Ensemble import Ensemble
from Models.HistoryRecommender import HistoryConfig, HistoryRecommender
from Models.inputs import DataSizes, Known
from Models.Recommender import ModelConfig, Recommender
from Models.Sequential import Sequential, SequentialConfig
from utils.files import UserError, write_aside

# A model is a line here: its name, its class and the class of its configuration.
ARCHITECTURES: dict[str, tuple[type[nn.Module], type]] = {
    "HistoryRecommender": (HistoryRecommender, HistoryConfig),
    "Recommender": (Recommender, ModelConfig),
    "Sequential": (Sequential, SequentialConfig),
    "Autoencoder": (Autoencoder, AutoencoderConfig),
}


def make_model(name: str, members: int, config: Any, sizes: DataSizes, known: Known | None = None) -> nn.Module:
    """A new model of this name or, of several members, their ensemble; without `known`, for a state to be loaded."""
    models = [ARCHITECTURES[name][0](config, sizes, known) for _ in range(members)]
    return Ensemble(models) if members > 1 else models[0]


@dataclass(frozen=True)
class Catalogue:
    """The ids and titles behind a model's positions, and what each user has rated.

    seen_movies holds the movie positions of all users behind each other, int32; user u's are those
    from seen_start[u] to seen_start[u + 1].
    """

    dataset: str
    user_ids: list  # int or str, as in the user's files
    movie_ids: list
    titles: list[str]
    genres: list[str]  # "Action|Comedy"
    seen_start: Tensor  # int64 [n_users + 1]
    seen_movies: Tensor  # int32 [n_ratings]

    def seen(self, user: int) -> Tensor:
        """Positions of the movies that the user at this position has rated, int64."""
        return self.seen_movies[self.seen_start[user] : self.seen_start[user + 1]].long()


def save_checkpoint(path: Path, model: nn.Module, catalogue: Catalogue, **more: Any) -> None:
    """Write a checkpoint aside and rename it; `more` (epoch, optimizer, ...) must be plain too.

    Raises:
        OSError: the disk is full.
    """
    members = model.members if isinstance(model, Ensemble) else [model]
    content = {
        "architecture": type(members[0]).__name__,
        "members": len(members),
        "config": asdict(model.config),
        "sizes": asdict(model.sizes),
        "state": model.state_dict(),
        "catalogue": vars(catalogue),
        **more,
    }
    with write_aside(path) as aside:
        try:
            torch.save(content, aside)
        except RuntimeError as error:  # what PyTorch makes of a full disk
            raise OSError(None, "it could not be written whole", str(path)) from error


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint on the CPU, wherever it was trained; nothing in the file is executed.

    Raises:
        UserError: the file is missing, damaged, or holds more than plain types and tensors.
    """
    try:
        with zipfile.ZipFile(path) as parts:  # PyTorch writes check sums, but does not look at them
            if damaged := parts.testzip():
                raise ValueError(f"{damaged} is damaged")
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f"There is no checkpoint {path}: train one with python train.py.") from error
    except PermissionError:
        raise
    except (OSError, zipfile.BadZipFile, pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"{path} is no checkpoint that can be read safely ({reason}): train anew with train.py."
        ) from error


def rebuild(content: dict[str, Any], device: torch.device) -> tuple[nn.Module, Catalogue]:
    """The model of a checkpoint, on `device` and ready to score, and its catalogue.

    Raises:
        UserError: the checkpoint is of another version of this code.
    """
    try:
        name = content["architecture"]
        config = ARCHITECTURES[name][1](**content["config"])
        model = make_model(name, content["members"], config, DataSizes(**content["sizes"]))
        model.load_state_dict(content["state"])
        catalogue = Catalogue(**content["catalogue"])
    except (KeyError, TypeError, RuntimeError) as error:
        raise UserError(f"The checkpoint does not fit this code ({error}): train anew with python train.py.") from error
    return model.to(device).eval(), catalogue
