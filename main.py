#!/usr/bin/env python3
"""Every stage in order: data, features, two trainings, loss curve, recommendation. What is current is skipped.

A model that predicts stars ranks badly, so a second one is trained to rank: it chooses the recommended movies, and the
first one's stars stand beside them.

    python main.py
    python main.py --data dataset/ml-100k --user 42

Each stage is a command of its own, shown as it is run.
"""

import json
import shlex
import subprocess
import sys
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import train
from Models.dataLoader import RatingsData, load_data
from Models.presets import PRESETS
from utils import cli, runs
from utils.cli import Device, flag
from utils.download import fetch_dataset
from utils.encoder import DEFAULT_ENCODER
from utils.files import ROOT, RUNS, UserError, read_json

RANKING = "autoencoder"  # the preset of train.py that chooses the movies


@dataclass(frozen=True)
class Settings:
    data: Path | None = flag(None, "folder of the data set (default: MovieLens 1M or else 100K)", metavar="DIR")
    features: Path = cli.features_flag()
    encoder: str = flag(DEFAULT_ENCODER, "name on the Hugging Face hub, or folder, of a BERT-like model")
    offline: bool = flag(False, "fetch nothing: data and encoder must be on this machine")
    user: str = flag("1", "id of the user to recommend to", metavar="ID")
    device: Device = cli.device_flag()


def main() -> None:
    settings = cli.parse(Settings, __doc__, None)
    device = ("--device", settings.device)
    heading("1. Data")
    data = choose_data(settings.data, settings.offline)
    heading("2. Features")
    offline = ["--offline"] * settings.offline
    features = ("--features", settings.features, "--encoder", settings.encoder)
    stage("utils/BERT.py", "--data", data, *features, *offline, *device)
    heading("3. Training, to predict stars and to rank")
    stars = trained(settings, data, "default")
    ranking = trained(settings, data, RANKING)
    heading("4. Loss curve")
    stage("resultAnalyze/loss_ananlyze.py", "--run", stars)
    heading("5. Recommendations")
    runs_of = ("--run", ranking, "--stars-from", stars)
    stage("generate_recommendation.py", *runs_of, "--user", settings.user, *device)


def heading(text: str) -> None:
    print(f"\n== {text}", flush=True)


def choose_data(named: Path | None, offline: bool) -> Path:
    """The named folder or, without one, MovieLens 1M or else the smaller 100K; says which and why."""
    if named is not None:
        print(f"Using {cli.shown(named)}, as asked.")
        return named
    try:
        folder, source = fetch_dataset("ml-1m", offline=offline)
    except UserError as error:
        print(f"{error}\nGoing on with MovieLens 100K.", flush=True)
        folder, source = fetch_dataset("ml-100k", offline=offline)
    print(f"Using {cli.shown(folder)}, from {source}.")
    return folder


def trained(settings: Settings, data: Path, preset: str) -> Path:
    """A finished run of just this preset on just these ratings and features: one that is there, or a new one."""
    wanted = train.Settings(**PRESETS[preset], preset=preset, data=data, features=settings.features)
    if run := current_run(wanted, load_data(data, settings.features)):
        print(f"{cli.shown(run)} was trained on this data and these features, preset {preset}: nothing to do.")
        return run
    run = RUNS / f"{datetime.now():%Y%m%d-%H%M%S}-{preset}"
    places = ("--data", data, "--features", settings.features, "--device", settings.device, "--run", run)
    stage("train.py", "--preset", preset, *places)
    return run


def current_run(wanted: train.Settings, data: RatingsData) -> Path | None:
    """The newest finished run with all of these settings, on the same ratings and features, if there is one."""
    asked = settings_that_matter(cli.to_json(wanted)), data.fingerprint(), data.features.info.features_sha256
    for run in reversed(runs.finished_runs()):
        config = read_json(run / "config.json")
        found = settings_that_matter(config["settings"]), config["ratings_sha256"]
        if (*found, config["features"]["features_sha256"]) == asked:
            return run
    return None


def settings_that_matter(settings: dict[str, Any]) -> dict[str, Any]:
    """Those that decide what is trained; as in the file, where tuples are lists."""
    return json.loads(json.dumps({k: v for k, v in settings.items() if k not in ("run", "device", "tensorboard")}))


def stage(script: str, *arguments: object) -> None:
    """Run a script of this repo as a command; a fault there, which it has explained, ends this one too."""
    words = [str(argument) for argument in arguments]
    print("$ python " + shlex.join([script, *words]), flush=True)
    done = subprocess.run([sys.executable, str(ROOT / script), *words])
    if done.returncode:
        sys.exit(done.returncode)


if __name__ == "__main__":
    cli.run(main)
