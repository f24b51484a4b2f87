"""Tuning with the same number of trials for every model, settings chosen by validation, every trial kept in a file.

The first trial has the model's default settings; the next are drawn at random until ten have a value, and then they are
suggested by the tree-structured Parzen estimator of optuna (Bergstra et al. 2011, "Algorithms for Hyper-Parameter
Optimization"). A trial trains on the training rows and is measured on the validation rows, by RMSE where a model
predicts ratings and by NDCG@10 where it only ranks; presets are measured at their best epoch. The test rows are not
used. A trial that fails has no value, but is kept. A model whose first trial takes over five minutes gets
proportionally fewer trials, but at least three.
"""

import dataclasses
import json
import math
import os
import shutil
import time
from contextlib import redirect_stdout
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

import pandas as pd
import torch

import train
from Models.configs import TrainConfig
from Models.evaluation.rankings import K, RankingEvaluator
from Models.evaluation.ratings import RatingEvaluator
from resultAnalyze.baselines import BASELINES, is_rating_model
from utils import runs
from utils.cli import is_out_of_memory
from utils.files import UserError, write_table
from utils.metrics import rmse

LONG_TRIAL = 300.0  # seconds: a model whose first trial takes longer gets fewer
MIN_TRIALS = 3
COLUMNS = ("trial", "value", "seconds", "settings")


class NoTrial(UserError):
    """None of a model's trials has a value."""


@dataclass(frozen=True)
class Range:
    """The values between two numbers, integers between integers."""

    low: float
    high: float
    log: bool = False


ALS = {
    "factors": Range(16, 256, True),
    "regularization": Range(1e-4, 100.0, True),
    "alpha": Range(1.0, 40.0, True),
    "iterations": Range(5, 30),
}
# The tuned settings and their bounds: arguments of a baseline's function, or flags of a preset.
SPACES: dict[str, dict[str, Range | tuple]] = {
    "user + movie bias": {"damping_movie": Range(0.1, 100.0, True), "damping_user": Range(0.1, 100.0, True)},
    "genre kNN": {"damping": Range(1.0, 100.0, True)},
    "item kNN (implicit)": {"neighbours": Range(2, 1000, True)},
    "MF (cornac)": {
        "factors": Range(5, 100, True),
        "epochs": Range(10, 80),
        "penalty": Range(0.005, 0.2, True),
        "learning_rate": Range(0.002, 0.05, True),
    },
    "SLIM (scikit-learn)": {"penalty": Range(0.01, 1.0, True), "l1_ratio": Range(0.001, 0.3, True)},
    "Bayesian FM (myfm)": {"rank": Range(4, 48, True), "samples": Range(100, 300)},
    "ALS (implicit)": ALS,
    "ALS, weighted by rating": ALS,
    "BPR (implicit)": {
        "factors": Range(16, 256, True),
        "regularization": Range(1e-4, 0.3, True),
        "learning_rate": Range(3e-4, 0.3, True),
        "iterations": Range(30, 300, True),
    },
    "EASE": {"penalty": Range(20.0, 5000.0, True)},
    "EASE, weighted by rating": {"penalty": Range(20.0, 5000.0, True)},
    "EASE, weighted, and the last week": {"penalty": Range(20.0, 5000.0, True), "lately": Range(0.01, 5.0, True)},
    "original": {
        "embedding_dim": Range(8, 128, True),
        "lr": Range(1e-4, 1e-2, True),
        "dropout": Range(0.0, 0.6),
        "batch_size": Range(64, 1024, True),
    },
    "ncf": {
        "embedding_dim": Range(16, 96, True),
        "lr": Range(2e-3, 0.03, True),
        "epochs": Range(8, 24),
        "history_precision": Range(1.0, 50.0, True),
        "audience_precision": Range(20.0, 500.0, True),
        "feature_precision": Range(50.0, 5000.0, True),
    },
    "history": {
        "embedding_dim": Range(16, 64, True),
        "lr": Range(2e-3, 0.03, True),
        "history_precision": Range(1.0, 50.0, True),
        "audience_precision": Range(50.0, 2000.0, True),
        "feature_precision": Range(200.0, 10_000.0, True),
    },
    "ncf-ranking": {
        "embedding_dim": Range(32, 256, True),
        "lr": Range(1e-3, 0.02, True),
        "dropout": Range(0.1, 0.7),
        "temperature": Range(0.05, 0.3, True),
        "epochs": Range(10, 50),
        "weight_decay": Range(1e-3, 1.0, True),
    },
    "autoencoder": {
        "embedding_dim": Range(128, 1024, True),
        "lr": Range(3e-4, 5e-3, True),
        "dropout": Range(0.2, 0.7),
        "network_weight": Range(0.05, 2.0, True),
        "feature_weight": Range(1.0, 1000.0, True),
    },
    "content": {
        "lr": Range(0.01, 0.3, True),
        "feature_weight": Range(1.0, 1000.0, True),
        "epochs": Range(2, 8),
        "share_as_new": Range(0.1, 0.9),
    },
    "transformer": {
        "lr": Range(3e-4, 5e-3, True),
        "dropout": Range(0.1, 0.5),
        "embedding_dim": (64, 128),
        "num_layers": (2, 4),
    },
    "gru": {"lr": Range(3e-4, 1e-2, True), "dropout": Range(0.1, 0.5), "embedding_dim": (64, 128)},
}


def tuned(
    name: str,
    evaluator: RankingEvaluator,
    config: TrainConfig | None,
    n_trials: int,
    folder: Path,
    device: torch.device,
) -> dict[str, Any]:
    """The settings of a model's best trial; {} if there is nothing to tune.

    Trials that an earlier call finished are read from `folder`/trials-<name>.csv and count.

    Args:
        config: the preset's configuration on this data; None for a baseline
        n_trials: how many; fewer for a model whose first trial takes long
        device: where presets train
    """
    if name not in SPACES or not n_trials:
        return {}
    lower_is_better = is_rating_model(name)
    path = trials_file(folder, name)
    done = pd.read_csv(path).to_dict("records") if path.is_file() else []
    defaults = default_settings(name, config)
    while len(done) < wanted(n_trials, done):
        chosen = suggested(SPACES[name], done, lower_is_better) if done else defaults
        print(f"{name}, trial {len(done) + 1} of {wanted(n_trials, done)}: {chosen} ...", flush=True)
        started = time.perf_counter()
        value = validate(name, evaluator, config, chosen, folder, device)
        row = (len(done) + 1, value, round(time.perf_counter() - started, 1), json.dumps(chosen))
        done.append(dict(zip(COLUMNS, row, strict=True)))
        write_table(path, pd.DataFrame(done))
    best = min if lower_is_better else max
    if not valued(done):
        raise NoTrial(f"No trial of {name} could be validated: see {path}.")
    return json.loads(best(valued(done), key=lambda row: row["value"])["settings"])


def suggested(space: dict[str, Range | tuple], done: list[dict[str, Any]], lower_is_better: bool) -> dict[str, Any]:
    """The settings to try next, after the trials that are done."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    distributions = {key: distribution(bounds) for key, bounds in space.items()}
    study = optuna.create_study(
        direction="minimize" if lower_is_better else "maximize",
        sampler=optuna.samplers.TPESampler(seed=len(done)),  # so that it resumes as if it had not stopped
    )
    for row in valued(done):
        params = json.loads(row["settings"])
        study.add_trial(optuna.trial.create_trial(params=params, distributions=distributions, value=row["value"]))
    return study.ask(distributions).params


def trials_file(folder: Path, name: str) -> Path:
    return folder / f"trials-{name.replace(' ', '-')}.csv"


def trials_done(folder: Path, name: str) -> int:
    """How many trials a model has had."""
    path = trials_file(folder, name)
    return len(pd.read_csv(path)) if path.is_file() else 0


def valued(done: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The trials that have a value."""
    return [row for row in done if math.isfinite(row["value"])]


def wanted(n_trials: int, done: list[dict[str, Any]]) -> int:
    """How many trials to run: `n_trials`, or proportionally fewer if the first one took long."""
    if not done or done[0]["seconds"] <= LONG_TRIAL:
        return n_trials
    return min(n_trials, max(MIN_TRIALS, int(n_trials * LONG_TRIAL / done[0]["seconds"])))


def distribution(bounds: Range | tuple) -> Any:
    """The same bounds as a distribution of optuna."""
    from optuna import distributions

    if isinstance(bounds, tuple):
        return distributions.CategoricalDistribution(bounds)
    kind = distributions.IntDistribution if isinstance(bounds.low, int) else distributions.FloatDistribution
    return kind(bounds.low, bounds.high, log=bounds.log)


def default_settings(name: str, config: TrainConfig | None) -> dict[str, Any]:
    """A model's settings if none are given: those of the preset, or the defaults of the baseline's function."""
    if config is None:
        known = signature(BASELINES[name].fit).parameters
        return {key: known[key].default for key in SPACES[name]}
    return {key: getattr(getattr(config, part_of(config, key)), key) for key in SPACES[name]}


def part_of(config: TrainConfig, flag: str) -> str:
    """Whether a flag belongs to the model or to the optimisation."""
    return "model" if hasattr(config.model, flag) else "optim"


def with_settings(config: TrainConfig, settings: dict[str, Any]) -> TrainConfig:
    """A configuration with other settings."""
    for key, value in settings.items():
        part = part_of(config, key)
        config = dataclasses.replace(config, **{part: dataclasses.replace(getattr(config, part), **{key: value})})
    return config


# --- one trial -----------------------------------------------------------------------------------


def validate(
    name: str,
    evaluator: RankingEvaluator,
    config: TrainConfig | None,
    settings: dict[str, Any],
    folder: Path,
    device: torch.device,
) -> float:
    """The validation metric of a model with these settings, trained on the training rows."""
    if config is not None:
        try:
            return validate_preset(with_settings(config, settings), folder / f"trial-{name}", device)
        except Exception as error:
            if isinstance(error, train.Diverged) or is_out_of_memory(error):
                return no_value(error)
            raise
    data, split = evaluator.data, evaluator.split
    try:
        fitted = BASELINES[name].fit(data.select(split.train), 0, **settings)
    except ImportError:
        raise
    except Exception as error:  # any error of a library, for settings that it can't handle
        return no_value(error)
    if fitted.predict:
        return rmse(RatingEvaluator(data, split).predict(fitted, split.val), data.rating[split.val])
    evaluator = dataclasses.replace(evaluator, k=K)
    return evaluator.hr_and_ndcg(evaluator.rank(fitted.score, split.train, split.val))[f"ndcg@{K}"]


def no_value(error: Exception) -> float:
    """NaN, after printing why a trial failed."""
    print(f"This trial failed ({type(error).__name__}: {error}).", flush=True)
    return math.nan


def validate_preset(config: TrainConfig, run: Path, device: torch.device) -> float:
    """The best epoch's validation metric of a training without a test, whose folder is not kept."""
    if run.is_dir():  # from a trial that was stopped
        runs.discard(run)
    config = dataclasses.replace(config, run=dataclasses.replace(config.run, run=run))
    try:
        with Path(os.devnull).open("w", encoding="utf-8", errors="replace") as silence, redirect_stdout(silence):
            train.train(config, device, tested=False)
        epochs = pd.read_csv(run / "metrics.csv")
    finally:
        shutil.rmtree(run, ignore_errors=True)
    return float(epochs["val_rmse"].min() if config.ranking is None else epochs[f"val_ndcg@{K}"].max())
