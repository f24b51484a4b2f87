"""A training's folder: its configuration, the record of its test, and resuming where it was interrupted."""

import platform
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from Models.configs import TrainConfig
from Models.Dataset import Model
from Models.evaluation.evaluators import Evaluator, best_epoch
from Models.ratings_data import RatingsData, split_fingerprint
from utils import distributed
from utils.config import to_json
from utils.files import UserError, read_json, sha256, write_json
from utils.runs import read_checkpoint
from utils.splits import Split, share_before_training_end


def write_config(folder: Path, config: TrainConfig, data: RatingsData, split: Split) -> None:
    """config.json: the configuration, and what it is trained on and with."""
    versions = {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__}
    record = {"config": to_json(config) | {"data": to_json(config.data.located())}, "protocol": split.protocol}
    record |= data_record(data) | {"user_features": list(data.user_feature_names), "versions": versions}
    record |= {"continued_from_sha256": continued_from(config)}
    write_json(folder / "config.json", record)


def data_record(data: RatingsData) -> dict[str, Any]:
    """What identifies the ratings and features, to tell whether others are the same."""
    return {"ratings_sha256": data.fingerprint(), "features": asdict(data.features.info)}


def continued_from(config: TrainConfig) -> str | None:
    """SHA-256 of the weights that a training starts from; None if it starts from scratch."""
    return sha256(config.run.continue_from / "best.pt") if config.run.continue_from else None


def check_same_data(folder: Path, config: TrainConfig, data: RatingsData) -> None:
    """Raises UserError if a run's ratings, features or initial weights are not those that it was trained with."""
    record = read_json(folder / "config.json")
    if record.get("features") != asdict(data.features.info):
        raise UserError(f"The features are not those that {folder} was trained with: make them again as they were.")
    if record.get("ratings_sha256") != data.fingerprint():
        raise UserError(f"The ratings or users are not those that {folder} was trained with: put the old files back.")
    if record.get("continued_from_sha256") != continued_from(config):
        raise UserError(f"{config.run.continue_from} is not as it was when {folder} continued from it: train again.")


def restore(
    config: TrainConfig, model: Model, optimizer: torch.optim.Optimizer, data: RatingsData
) -> list[dict[str, Any]]:
    """Restore model and optimizer of the stopped training; returns the metrics of its epochs, [] without last.pt."""
    folder = config.run.resume
    check_same_data(folder, config, data)
    if not (folder / "last.pt").is_file():
        return []
    last = read_checkpoint(folder / "last.pt")
    try:
        distributed.load_states(model, optimizer, last)
        epochs = list(last["epochs"])
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, RuntimeError) as error:
        raise UserError(
            f"{folder / 'last.pt'} is of another training than the config.json next to it: train again with train.py."
        ) from error
    return epochs


def make_logger(folder: Path, tensorboard: bool) -> Callable[[dict[str, Any]], None]:
    """A function that shows an epoch's metrics: a line on the screen and, if wanted, TensorBoard."""
    if tensorboard:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise UserError("TensorBoard is not installed: pip install -r requirements-dev.txt.") from error
        writer = SummaryWriter(str(folder))

    def log(row: dict[str, Any]) -> None:
        words = [f"epoch {row['epoch']:3}", f"train loss {row['train_loss']:.5f}"]
        if "val_rmse" in row:
            words += [f"validation loss {row['val_loss']:.5f}", f"RMSE {row['val_rmse']:.4f}"]
        if "val_ndcg@10" in row:
            words += [f"validation HR@10 {row['val_hr@10']:.4f}", f"NDCG@10 {row['val_ndcg@10']:.4f}"]
        print("   ".join([*words, f"{row['seconds']:.1f} s"]), flush=True)
        if tensorboard:
            for name in row.keys() - {"epoch"}:
                writer.add_scalar(name, row[name], row["epoch"])
            writer.flush()

    return log


# --- records of a finished training --------------------------------------------------------------


def training_record(
    config: TrainConfig, data: RatingsData, split: Split, epochs: list[dict[str, Any]]
) -> dict[str, Any]:
    """What was trained on what, stored with a run's results."""
    return {
        "dataset": data.name,
        "split": "given files" if data.n_given_train else config.data.split,
        "ratios": list(config.data.ratios),
        "train_rows": len(split.train),
        "val_rows": len(split.val),
        "test_rows": len(split.test),
        "preset": config.preset,
        "changes": config.changes(),
        "seed": config.run.seed,
        "epochs": len(epochs),
        "wall_seconds": round(sum(row["seconds"] for row in epochs), 1),
    }


def test_record(config: TrainConfig, evaluator: Evaluator, epochs: list[dict[str, Any]]) -> dict[str, Any]:
    """Description of the evaluation protocol, in words and in fields, stored with the test metrics."""
    data, split, best = evaluator.data, evaluator.split, best_epoch(epochs, evaluator)
    chosen = f"epoch chosen by {evaluator.monitor.replace('val_', 'validation ')}"
    by = chosen if len(split.val) else "no validation, fixed number of epochs"
    protocol = evaluator.protocol
    if hasattr(config.model, "request_time"):
        known = "known" if evaluator.request_times.is_forecast() else "that of the latest known rating"
        protocol = protocol | {"request_time": known if config.model.request_time else "not known"}
    fields = "; ".join(f"{name.replace('_', ' ')}: {value}" for name, value in protocol.items())
    return training_record(config, data, split, epochs) | {
        "protocol": f"{split.protocol}; {fields}; {by}; tested once by this run",
        **protocol,
        "task": config.model.task,
        "model": type(config.model).__name__.removesuffix("Config"),
        "split_sha256": split_fingerprint(data, split),
        "share_of_test_rows_older_than_newest_training_row": share_before_training_end(data.time, split),
        "best_epoch": best,
        evaluator.monitor: epochs[best - 1].get(evaluator.monitor),
    }
