#!/usr/bin/env python3
"""Run every stage in order: data, metadata, features, training, loss curve, recommendations; skip what is current.

    python main.py
    python main.py --data dataset/ml-100k --user 42

A model that predicts ratings ranks badly, so two are trained: the multimodal NCF predicts ratings, and a ranking model
chooses the recommended movies. Each is trained twice: on a part of the ratings, to measure how good it is, and then on
all of them, for recommending. Each stage is a separate command, which is shown before it runs. If the ratings are all
equal or missing, so that they only say who chose what, no ratings are predicted. For MovieLens, the people who made the
movies are looked up; for other data, --metadata names a file with what is known of the movies.
"""

import dataclasses
import os
import shlex
import subprocess
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from Models.configs import PRESETS, TrainConfig
from Models.ratings_data import load_data
from Models.training.run_folder import data_record
from resultAnalyze.demo import MIN_RATINGS
from resultAnalyze.experiment import is_run_of
from utils import cli, runs
from utils.cli import display_path
from utils.config import (
    Device,
    Encoding,
    FeaturesFile,
    OptionalFileName,
    OptionalFolder,
    as_typed,
    features_file,
    optional,
    parse,
)
from utils.download import fetch_dataset
from utils.encoder import DEFAULT_ENCODER
from utils.files import ROOT, Note, UserError
from utils.metadata import fetch_films, metadata_file

RATING, RANKING = "ncf", "autoencoder"  # the presets of train.py: one predicts ratings, the other chooses the movies
LARGE_CATALOGUE, RANKING_OF_LARGE = 30_000, "ncf-ranking"  # above so many movies, this preset ranks: it scales better
MANY_RATINGS, MIN_EPOCHS = 5_000_000, 4  # above this many ratings, proportionally fewer epochs, but at least these
RATINGS_PER_BATCH_SIZE = 1_000_000  # the NCF's batches grow with the data, as each step sums over all ratings


@dataclass(frozen=True)
class Settings:
    data: OptionalFolder = None
    """folder of the data set (default: MovieLens 1M or else 100K)"""
    encoding: Encoding = None
    features: FeaturesFile = None
    metadata: OptionalFileName = None
    """file with more about the movies (default: for MovieLens, what utils/metadata.py finds)"""
    encoder: str = DEFAULT_ENCODER
    """name on the Hugging Face hub, or folder, of a BERT-like model"""
    offline: bool = False
    """fetch nothing: data and encoder must be on this machine"""
    user: optional(str, "ID", "default: 1, or else the first of the data") = None
    """id of the user to recommend to"""
    device: Device = "auto"


@dataclass(frozen=True)
class Plan:
    """What to train for this data. The data itself is not kept: each stage is a process that reads it again.

    configs: the configurations to train
    record: the `data_record`, by which current runs are recognised
    has_demo: whether some movie has enough ratings for the demo page
    """

    configs: list[TrainConfig]
    record: dict[str, Any]
    has_demo: bool


def main() -> None:
    settings = parse(Settings, __doc__)
    device = ("--device", settings.device)
    heading("1. Data")
    data = choose_data(settings.data, settings.offline)
    settings = dataclasses.replace(settings, features=features_file(data, settings.features))
    heading("2. Features")
    metadata = metadata_of(settings, data)
    more = [*(("--metadata", metadata) if metadata else ()), *["--offline"] * settings.offline]
    stage("utils/BERT.py", *data_flags(settings, data), "--encoder", settings.encoder, *more, *device, notes=True)
    heading("3. Training: to predict ratings and to rank, each on training rows and then on all ratings")
    plan = planned(settings, data)
    trainings = [trained(settings, data, plan.record, config) for config in plan.configs]
    heading("4. Loss curve, reports and a demo page")
    stage("resultAnalyze/loss_ananlyze.py", "--run", trainings[0][0])
    if plan.has_demo:
        stage("resultAnalyze/demo.py", "--run", trainings[-1][1])
    else:
        print(f"No demo page: no movie has {MIN_RATINGS} ratings.")
    for tested, _ in trainings:
        stage("resultAnalyze/report.py", "--run", tested)
    heading("5. Recommendations, by the models that were trained on all ratings")
    *rating, ranking = (final for _, final in trainings)
    models = ("--run", ranking, *(("--predictions-from", *rating) if rating else ()))
    stage("generate_recommendation.py", *models, *(("--user", settings.user) if settings.user else ()), *device)


def heading(text: str) -> None:
    print(f"\n== {text}", flush=True)


def choose_data(named: Path | None, offline: bool) -> Path:
    """The named folder or, without one, MovieLens 1M or else the smaller 100K; prints the choice and its reason."""
    if named is not None:
        print(f"Using {display_path(named)}, as asked.")
        return named
    try:
        folder, source = fetch_dataset("ml-1m", offline=offline)
    except UserError as error:
        print(f"{error}\nContinuing with MovieLens 100K.", flush=True)
        folder, source = fetch_dataset("ml-100k", offline=offline)
    print(f"Using {display_path(folder)}, from {source}.")
    return folder


def metadata_of(settings: Settings, data: Path) -> Path | None:
    """The metadata file of the movies; None if there is none."""
    name = data.resolve().name
    if settings.metadata is not None or not name.startswith("ml-"):
        return settings.metadata
    try:
        fetch_films(settings.offline)
    except UserError as error:
        print(f"{error}\nContinuing with titles, genres and years.", flush=True)
        return None
    path = metadata_file(data)
    stage("utils/metadata.py", "--data", data, "--output", path, *encoding_flags(settings))
    return path


def data_flags(settings: Settings, folder: Path) -> tuple[object, ...]:
    """The flags that name the data set and its features."""
    return "--data", folder, "--features", settings.features, *encoding_flags(settings)


def encoding_flags(settings: Settings) -> tuple[str, ...]:
    return ("--encoding", settings.encoding) if settings.encoding else ()


def planned(settings: Settings, folder: Path) -> Plan:
    """Look at the data and decide what to train.

    Raises:
        UserError: the requested user has no ratings.
    """
    warnings.simplefilter("ignore", Note)  # utils/BERT.py prints the notes about the data
    data = load_data(folder, settings.features, encoding=settings.encoding)
    if settings.user is not None and settings.user not in map(str, data.user_ids):
        raise UserError(f"User {settings.user!r} has no ratings in {data.name}: name another with --user.")
    configs = configs_for(len(data.movies), len(data.rating), has_ratings=not data.scale.is_constant)
    return Plan(configs, data_record(data), has_demo=bool(np.bincount(data.movie).max() >= MIN_RATINGS))


def configs_for(n_movies: int, n_ratings: int, has_ratings: bool) -> list[TrainConfig]:
    """The presets to train on data of this size, for many ratings with fewer epochs and larger batches."""
    ranking = RANKING if n_movies < LARGE_CATALOGUE else RANKING_OF_LARGE
    configs = [PRESETS[preset] for preset in ([RATING, ranking] if has_ratings else [ranking])]
    return configs if n_ratings <= MANY_RATINGS else [for_many(config, n_ratings) for config in configs]


def for_many(config: TrainConfig, n_ratings: int) -> TrainConfig:
    """A preset adapted to more than MANY_RATINGS ratings."""
    optim = config.optim
    changes = {"epochs": max(MIN_EPOCHS, optim.epochs * MANY_RATINGS // n_ratings)}
    if config.preset == RATING:
        changes["batch_size"] = optim.batch_size * (n_ratings // RATINGS_PER_BATCH_SIZE)
    return dataclasses.replace(config, optim=dataclasses.replace(optim, **changes))


def trained(settings: Settings, folder: Path, record: dict[str, Any], config: TrainConfig) -> tuple[Path, Path]:
    """The tested and the final run of this configuration, both finished, on the data with this record."""
    changes = [word for name, value in config.changes().items() for word in as_typed(name, value)]
    data = dataclasses.replace(config.data, folder=folder, features=settings.features, encoding=settings.encoding)
    config = dataclasses.replace(config, data=data)
    tested = run_of(config, settings, record, "--preset", config.preset, *changes, *data_flags(settings, folder))
    final = dataclasses.replace(config, run=dataclasses.replace(config.run, final=tested.absolute()))
    return tested, run_of(final, settings, record, "--final", tested)


def run_of(config: TrainConfig, settings: Settings, record: dict[str, Any], *flags: object) -> Path:
    """A finished run with exactly this configuration: an existing one, or a new one with these flags."""
    words = f"preset {config.preset}, {'all ratings' if config.run.final else 'training rows'}"
    for run in reversed(runs.finished_runs()):
        if is_run_of(run, config, record):
            print(f"{display_path(run)} is current ({words}): nothing to do.")
            return run
    run = runs.new_run(config.kind)
    stage("train.py", *flags, "--run", run, "--device", settings.device)
    return run


def stage(script: str, *arguments: object, notes: bool = False) -> None:
    """Run a script of this repo as a command; if it fails, it has explained why, and this script ends too.

    notes: whether it prints its notes about the data, which need printing only once
    """
    words = [str(argument) for argument in arguments]
    print("$ python " + shlex.join([script, *words]), flush=True)
    quiet = {} if notes else {cli.NO_NOTES: "1"}
    done = subprocess.run([sys.executable, str(ROOT / script), *words], env=os.environ | quiet)
    if done.returncode:
        sys.exit(done.returncode)


if __name__ == "__main__":
    cli.run(main)
