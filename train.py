#!/usr/bin/env python3
"""Train a model, keep its best epoch by validation and test that one once.

    python train.py                                          # dataset/ml-1m, random 50/30/20
    python train.py --preset ncf                             # NCF on ids, titles and genres, without histories
    python train.py --preset original                        # the original's configuration, to the letter
    python train.py --objective ranking                      # the NCF, trained to rank
    python train.py --preset autoencoder                     # what else a user would like: best lists on random rows
    python train.py --preset transformer --split leave-one-out --relevant 0      # the next movie; or --preset gru
    python train.py --data dataset/ml-100k --seed 1
    python train.py --split time --ratios 0.8 0.1 0.1        # oldest ratings train, newest test
    python train.py --split leave-one-out
    python train.py --data dataset/ml-100k --train-file u1.base --test-file u1.test
    python train.py --ratios 0.9 0 0.1 --epochs 8            # no validation: a fixed number of epochs
    torchrun --nproc-per-node 2 -- train.py                  # two processes, or GPUs, share each batch
    python train.py --resume runs/20260101-120000            # go on with a training that was stopped

Writes runs/<id>/: config.json, metrics.csv (one row an epoch), best.pt, last.pt, test_predictions.csv (stars) or
test_topn.csv (ranking) and, once all is done, test_metrics.json.
"""

import argparse
import dataclasses
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from Models import parallel
from Models.Autoencoder import AutoencoderConfig
from Models.checkpoint import ARCHITECTURES, Catalogue, make_model, read_checkpoint, rebuild, save_checkpoint
from Models.dataLoader import (
    RatingsData,
    beside,
    epoch_seed,
    load_data,
    make_loader,
    note_on_order,
    split_fingerprint,
    split_rows,
)
from Models.HistoryRecommender import HistoryConfig
from Models.inputs import describe
from Models.lists import UserLists
from Models.objectives import Objective, RankingObjective, RatingObjective
from Models.presets import PRESETS, PresetName
from Models.Recommender import ModelConfig
from Models.Sequential import SequentialConfig
from Models.splits import Ratios, Split, SplitName, share_of_past
from Models.training import best_epoch, learning_rates, parameter_groups, train_epoch
from utils import cli, runs
from utils.cli import Device, count, flag, not_negative, positive, shown
from utils.files import UserError, read_json, write_json

ModelName = Literal["HistoryRecommender", "Recommender", "Sequential", "Autoencoder"]
OBJECTIVES = {
    **{"HistoryRecommender": ("rating",), "Recommender": ("rating", "ranking")},
    **{"Sequential": ("ranking",), "Autoencoder": ("ranking",)},
}


@dataclass(frozen=True)
class Settings(HistoryConfig, ModelConfig, SequentialConfig, AutoencoderConfig):
    """Every setting of a training, and so every flag; the models' own are those of their configurations."""

    preset: PresetName = flag("default", "a named configuration; flags beside it win")
    model: ModelName = flag("HistoryRecommender", "the file of Models/ to train")
    relevant: float = flag(4.0, "with --objective ranking: stars from which a list should hold a movie")
    data: Path = cli.data_flag()
    features: Path = cli.features_flag()
    run: Path | None = cli.run_flag("folder for this training (default: a new one in runs/)")
    resume: Path | None = flag(None, "go on with the stopped training in this folder, with its settings", metavar="DIR")
    split: SplitName = flag("random", "how the ratings are parted")
    ratios: Ratios = flag((0.5, 0.3, 0.2), "shares of the parts", metavar=("TRAIN", "VAL", "TEST"))
    train_file: Path | None = flag(None, "own training ratings, with --test-file instead of --split", metavar="FILE")
    test_file: Path | None = flag(None, "own test ratings, with --train-file", metavar="FILE")
    ensemble: int = flag(1, "models that differ in their random start alone, averaged", type=positive)
    seed: int = flag(0, "seed of the model; which rows are tested does not depend on it", type=count)
    device: Device = cli.device_flag()
    epochs: int = flag(8, "the most epochs to train", type=positive)
    patience: int = flag(0, "stop after so many epochs without a better validation; 0: never", type=count)
    batch_size: int = flag(8192, "ratings in a step; users, for Sequential and Autoencoder", type=positive)
    lr: float = flag(0.01, "learning rate of Adam", type=not_negative)
    schedule: Literal["cosine", "constant"] = flag("cosine", "learning rate over the epochs; cosine: up, then to 0")
    weight_decay: float = flag(1.0, "decoupled weight decay of the linear layers", type=not_negative)
    amp: bool = flag(False, "mixed precision: bfloat16 where that is enough; for GPUs, not for HistoryRecommender")
    tensorboard: bool = flag(False, "also write TensorBoard logs into the run folder")

    def model_config(self) -> Any:
        """The configuration of the chosen model.

        Raises:
            UserError: a flag is another model's, or the objective is.
        """
        if self.objective not in OBJECTIVES[self.model]:
            raise UserError(f"{self.model} does not learn {self.objective}: choose another --preset or --objective.")
        if self.amp and self.model == "HistoryRecommender":
            raise UserError("HistoryRecommender solves equations, for which bfloat16 is too coarse: leave --amp out.")
        own, preset = ARCHITECTURES[self.model][1], self.of_preset()
        names = {field.name for field in dataclasses.fields(own)}
        for name, (_, config) in ARCHITECTURES.items():
            for field in dataclasses.fields(config):
                if field.name not in names and getattr(self, field.name) != getattr(preset, field.name):
                    words = field.name.replace("_", "-")
                    raise UserError(f"--{words} is a setting of --model {name}, not of {self.model}: leave it out.")
        return own(**{name: getattr(self, name) for name in names})

    def of_preset(self) -> "Settings":
        """The preset's settings."""
        return dataclasses.replace(Settings(), **PRESETS[self.preset])

    def changed(self) -> dict[str, Any]:
        """The settings of model and training that are not the preset's."""
        preset = self.of_preset()
        names = [field.name for field in dataclasses.fields(ARCHITECTURES[self.model][1])]
        names += ["ensemble", "epochs", "patience", "batch_size", "lr", "schedule", "weight_decay", "amp"]
        return {name: getattr(self, name) for name in names if getattr(self, name) != getattr(preset, name)}


def defaults_for(flags: argparse.Namespace) -> dict[str, Any]:
    """The defaults under the preset of these flags; --objective ranking alone asks for the NCF that ranks."""
    asked = (flags.preset, flags.model, flags.objective)
    name = "ncf-ranking" if asked == ("default", "HistoryRecommender", "ranking") else flags.preset
    return PRESETS[name] | {"preset": name}


def main() -> None:
    settings = with_located_files(resumed(cli.parse(Settings, __doc__, None, defaults_for)))
    with parallel.ranks(cli.resolve_device(settings.device)) as device:
        train(settings, device)


def train(settings: Settings, device: torch.device) -> None:
    """One training from data to test; of several ranks, rank 0 writes."""
    writes = parallel.rank() == 0

    # data
    data = load_data(settings.data, settings.features, settings.train_file, settings.test_file)
    split = split_rows(data, settings.split, settings.ratios)
    rating = settings.objective == "rating"
    objective = RatingObjective(data, split) if rating else RankingObjective(data, split, settings.relevant)
    batching = ARCHITECTURES[settings.model][0].batching
    rows = objective.training_rows(batching.whole_users)
    loader = make_loader(data, rows, settings.batch_size, settings.seed, batching, device)
    settings = with_available_context(settings, data)
    print(f"{data.name}: {len(split.train):,} / {len(split.val):,} / {len(split.test):,} ratings. {split.protocol}.")
    if note := note_on_order(data):
        print(note)
    if past := share_of_past(data.time, split):
        print(f"Note: {past:.0%} of the test ratings are older than the newest training rating: this is no forecast.")
        if settings.model == "HistoryRecommender" and "time" in settings.context:
            print("The model's time inputs look at such later ratings, too: --split time shows what it can forecast.")

    # model and optimizer
    torch.manual_seed(settings.seed)
    config = settings.model_config()
    model = make_model(settings.model, settings.ensemble, config, *describe(data, split.train)).to(device)
    replica = parallel.replicated(model)
    optimizer = torch.optim.AdamW(parameter_groups(model, settings.weight_decay), lr=settings.lr, fused=True)
    catalogue = make_catalogue(data)

    # run folder
    folder = settings.resume or (start(settings, data, split) if writes else None)
    folder = parallel.gathered(folder)[0]
    lock = runs.locked(folder) if writes else None
    done = restore(folder, model, optimizer, data) if settings.resume else []
    if done and writes:
        runs.write_table(folder / "metrics.csv", done)  # the last row, if the stop came between last.pt and this file
    log = make_logger(folder, settings.tensorboard and writes)
    print(f"Training on {device} into {shown(folder)}; if stopped, python train.py --resume {shown(folder)} goes on.")

    # epochs
    for epoch in range(len(done) + 1, settings.epochs + 1):
        if settings.patience and done and len(done) - best_epoch(done, objective) >= settings.patience:
            break
        started = time.perf_counter()
        torch.manual_seed(epoch_seed(settings.seed, epoch))  # dropout depends on the epoch, not on what ran before
        loader.sampler.set_epoch(epoch)
        rates = learning_rates(settings.schedule, settings.lr, settings.epochs, epoch, len(loader))
        row = {"epoch": epoch, "train_loss": train_epoch(model, replica, loader, optimizer, rates, epoch, settings.amp)}
        if len(split.val):
            row |= {f"val_{name}": value for name, value in objective.validate(model).items()}
        done.append(row | {"seconds": time.perf_counter() - started})
        if writes:
            if best_epoch(done, objective) == epoch:
                save_checkpoint(folder / "best.pt", model, catalogue, epoch=epoch)
            save_checkpoint(folder / "last.pt", model, catalogue, epochs=done, optimizer=optimizer.state_dict())
            runs.write_table(folder / "metrics.csv", done)
        log(done[-1])

    # the one test, of the epoch that validation chose, as it was saved
    parallel.wait()  # until rank 0 has saved it
    model, _ = rebuild(read_checkpoint(folder / "best.pt"), device)
    metrics, rows = objective.test(model)
    if writes:
        runs.write_columns(folder / objective.test_file, rows)
        write_json(folder / runs.TEST_METRICS, metrics | protocol(settings, objective, done))
        runs.unlock(lock)
    print(f"Best epoch {best_epoch(done, objective)}: test {objective.in_words(metrics)}.")


def with_located_files(settings: Settings) -> Settings:
    """Settings whose --train-file and --test-file hold wherever a resumed training is started from."""
    found = {name: getattr(settings, name) for name in ("train_file", "test_file")}
    located = {name: beside(settings.data, path) for name, path in found.items() if path}
    return dataclasses.replace(settings, **located)


def with_available_context(settings: Settings, data: RatingsData) -> Settings:
    """The settings without the context that the data lacks, which is said; only the history model takes context."""
    if settings.model != "HistoryRecommender":
        return settings
    lacking = {
        "time": (data.time is None, "no times"),
        "year": (bool(data.movies["year"].isna().all()), "no release years"),
        "demographics": (data.user_features.shape[1] == 0, "no demographics"),
    }
    words = [lacking[name][1] for name in settings.context if lacking[name][0]]
    if words:
        print(f"{data.name} has {' and '.join(words)}: trained without them.")
    return dataclasses.replace(settings, context=tuple(c for c in settings.context if not lacking[c][0]))


# --- what travels with the model -----------------------------------------------------------------


def make_catalogue(data: RatingsData) -> Catalogue:
    """Ids, titles and what each user has rated: recommendations leave all of it out, whichever part it is in."""
    seen = UserLists.of(data.user, data.movie, len(data.user_ids))
    return Catalogue(
        dataset=data.name,
        user_ids=data.user_ids,
        movie_ids=data.movies["movie"].tolist(),
        titles=data.movies["title"].tolist(),
        genres=data.movies["genres"].str.join("|").tolist(),
        seen_start=seen.start,
        seen_movies=seen.movies.int(),
    )


# --- the run folder ------------------------------------------------------------------------------


def resumed(settings: Settings) -> Settings:
    """The settings as they are or, with --resume, those that the stopped training was started with.

    Raises:
        UserError: other flags stand beside --resume, or its folder holds no stopped training.
    """
    folder = settings.resume
    if folder is None:
        return settings
    if dataclasses.replace(settings, resume=None) != Settings():
        raise UserError("--resume goes on with the settings of its run: leave the other flags out.")
    if (folder / runs.TEST_METRICS).is_file():
        raise UserError(f"{folder} is finished: there is nothing to resume.")
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder} holds no training to go on with: start a new one in another folder.")
    saved = cli.from_json(Settings, read_json(folder / "config.json")["settings"])
    return dataclasses.replace(saved, resume=folder)


def start(settings: Settings, data: RatingsData, split: Split) -> Path:
    """A new run folder with its config.json."""
    folder = runs.new_run(settings.run)
    versions = {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__}
    features = asdict(data.features.info)
    config = {"settings": cli.to_json(settings), "protocol": split.protocol, "ratings_sha256": data.fingerprint()}
    write_json(folder / "config.json", config | {"features": features, "versions": versions})
    return folder


def restore(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, data: RatingsData
) -> list[dict[str, Any]]:
    """Put model and optimizer where the stopped training left them; returns the metrics of its epochs, maybe none."""
    config = read_json(folder / "config.json")
    if config["features"] != asdict(data.features.info):
        raise UserError(f"The features are not those that {folder} was trained with: make them again as they were.")
    if config.get("ratings_sha256") != data.fingerprint():
        raise UserError(f"The ratings are not those that {folder} was trained with: put the old files back.")
    if not (folder / "last.pt").is_file():
        return []
    last = read_checkpoint(folder / "last.pt")
    model.load_state_dict(last["state"])
    optimizer.load_state_dict(last["optimizer"])
    return last["epochs"]


def make_logger(folder: Path, tensorboard: bool) -> Callable[[dict[str, Any]], None]:
    """What shows an epoch's metrics: a line on the screen and, if wanted, TensorBoard."""
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


def protocol(settings: Settings, objective: Objective, done: list[dict[str, Any]]) -> dict[str, Any]:
    """How the test figures came about, in words and in fields."""
    data, split = objective.data, objective.split
    chosen = done[best_epoch(done, objective) - 1]
    by = f"epoch chosen by {objective.chosen_by.replace('val_', 'validation ')}"
    return {
        "protocol": f"{split.protocol}; {objective.protocol}; "
        + (by if len(split.val) else "no validation, fixed number of epochs")
        + "; test rows used once",
        "dataset": data.name,
        "split": "given files" if data.n_given_train else settings.split,
        "ratios": settings.ratios,
        "train_rows": len(split.train),
        "val_rows": len(split.val),
        "test_rows": len(split.test),
        "split_sha256": split_fingerprint(data, split),
        "share_of_test_rows_older_than_newest_training_row": share_of_past(data.time, split),
        "model": settings.model,
        "objective": settings.objective,
        "preset": settings.preset,
        "changed": settings.changed(),
        "seed": settings.seed,
        "best_epoch": chosen["epoch"],
        "epochs": len(done),
        objective.chosen_by: chosen.get(objective.chosen_by),
        "wall_seconds": round(sum(row["seconds"] for row in done), 1),
    }


if __name__ == "__main__":
    cli.run(main)
