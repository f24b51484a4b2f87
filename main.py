#!/usr/bin/env python3
"""Every stage in order: data, features, trainings, loss curve, recommendation. What is current is skipped.

    python main.py
    python main.py --data dataset/ml-100k --user 42

A model that predicts ratings ranks badly. So two are trained: the multimodal NCF predicts ratings, and one that learned
to rank chooses the recommended movies. Each is trained twice: on a part of the ratings, which tells how good it is, and
then on all of them, to recommend. Each stage is a command of its own, shown as it is run.
"""

import dataclasses
import shlex
import subprocess
import sys
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated

import tyro

from Models.configs import PRESETS, TrainConfig
from Models.dataLoader import load_data
from resultAnalyze.experiment import is_run_of
from utils import cli, runs
from utils.cli import display_path
from utils.config import DEFAULT_FEATURES, Device, FeaturesFile, OptionalFolder, parse
from utils.download import fetch_dataset
from utils.encoder import DEFAULT_ENCODER
from utils.files import ROOT, RUNS, UserError

RATING, RANKING = "ncf", "autoencoder"  # the presets of train.py: one predicts ratings, the other chooses the movies


@dataclass(frozen=True)
class Settings:
    data: OptionalFolder = None
    """folder of the data set (default: MovieLens 1M or else 100K)"""
    features: FeaturesFile = DEFAULT_FEATURES
    encoder: str = DEFAULT_ENCODER
    """name on the Hugging Face hub, or folder, of a BERT-like model"""
    offline: bool = False
    """fetch nothing: data and encoder must be on this machine"""
    user: Annotated[str, tyro.conf.arg(metavar="ID")] = "1"
    """id of the user to recommend to"""
    device: Device = "auto"


def main() -> None:
    settings = parse(Settings, __doc__)
    device = ("--device", settings.device)
    heading("1. Data")
    data = choose_data(settings.data, settings.offline)
    heading("2. Features")
    offline = ["--offline"] * settings.offline
    features = ("--features", settings.features, "--encoder", settings.encoder)
    stage("utils/BERT.py", "--data", data, *features, *offline, *device)
    heading("3. Training: to predict ratings and to rank, each on training rows and then on all ratings")
    tested, rating = trained(settings, data, RATING)
    _, ranking = trained(settings, data, RANKING)
    heading("4. Loss curve")
    stage("resultAnalyze/loss_ananlyze.py", "--run", tested)
    heading("5. Recommendations, by the models that were trained on all ratings")
    both = ("--run", ranking, "--predictions-from", rating)
    stage("generate_recommendation.py", *both, "--user", settings.user, *device)


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
        print(f"{error}\nGoing on with MovieLens 100K.", flush=True)
        folder, source = fetch_dataset("ml-100k", offline=offline)
    print(f"Using {display_path(folder)}, from {source}.")
    return folder


def trained(settings: Settings, folder: Path, preset: str) -> tuple[Path, Path]:
    """Two finished runs of a preset on just these ratings and features, the tested and the final one."""
    config = PRESETS[preset]
    data = dataclasses.replace(config.data, folder=folder, features=settings.features)
    config = dataclasses.replace(config, data=data)
    places = ("--data", folder, "--features", settings.features)
    tested = run_of(config, settings, "--preset", preset, *places)
    final = dataclasses.replace(config, run=dataclasses.replace(config.run, final=tested.absolute()))
    return tested, run_of(final, settings, "--final", tested)


def run_of(config: TrainConfig, settings: Settings, *flags: object) -> Path:
    """A finished run with exactly this configuration: one that is there, or a new one with these flags."""
    data = load_data(config.data.folder, config.data.features)
    words = f"preset {config.preset}, {'all ratings' if config.run.final else 'training rows'}"
    for run in reversed(runs.finished_runs()):
        if is_run_of(run, config, data):
            print(f"{display_path(run)} is current ({words}): nothing to do.")
            return run
    run = RUNS / f"{datetime.now():%Y%m%d-%H%M%S}-{config.preset}{'-final' if config.run.final else ''}"
    stage("train.py", *flags, "--run", run, "--device", settings.device)
    return run


def stage(script: str, *arguments: object) -> None:
    """Run a script of this repo as a command; if it fails, it has explained why, and this one ends as well."""
    words = [str(argument) for argument in arguments]
    print("$ python " + shlex.join([script, *words]), flush=True)
    done = subprocess.run([sys.executable, str(ROOT / script), *words])
    if done.returncode:
        sys.exit(done.returncode)


if __name__ == "__main__":
    cli.run(main)
