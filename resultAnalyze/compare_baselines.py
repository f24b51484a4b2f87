#!/usr/bin/env python3
"""Compare this project's models with well-known baselines: same rows, same masks, same metric code.

    python resultAnalyze/compare_baselines.py --data dataset/ml-100k
    python resultAnalyze/compare_baselines.py --models "most popular" EASE ncf --seeds 0 1 2
    python resultAnalyze/compare_baselines.py --tune 30

Baselines train on the training and validation rows; this project's models train on the training rows and choose their
epoch on the validation rows. With --tune, every model gets the same number of trials of its settings on the validation
rows: the files trials-*.csv hold every trial, and tuning.py has the bounds and says which models get fewer trials.
Without it, settings are fixed beforehand. Test ratings of --relevance-threshold or higher are relevant. Ranking is over
the whole catalogue without the user's movies of the training and validation rows, ties against the model.

Writes comparison.csv (one row per model and seed), comparison.md and comparison.png into --output, with each model's
gap to the best one (comparison.py). Finished rows are kept, with their metrics by user or movie in units/, so that an
interrupted comparison resumes where it stopped; seconds are comparable only if it resumes on the same device.
Some baselines need: pip install -r requirements-baselines.txt
"""

import dataclasses
import json
import sys
import time
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import numpy as np
import pandas as pd

from Models.checkpoint import Unsuitable
from Models.configs import PRESETS, DataConfig, RankingConfig, RunConfig, TrainConfig
from Models.Dataset import FittedModel
from Models.evaluation.rankings import RankingEvaluator
from Models.evaluation.ratings import RatingEvaluator
from Models.inputs import NonNegInt, PositiveInt
from resultAnalyze.baselines import BASELINES, is_rating_model, is_seeded
from resultAnalyze.comparison import UNITS, Comparison, save_units
from resultAnalyze.experiment import (
    check_protocol,
    in_processes,
    peak_memory,
    protocol_of,
    scores_of_test_rows,
    trained,
)
from resultAnalyze.intervals import UnitMetric, mean_over_users, rated_units, squared_by_unit
from resultAnalyze.tuning import NoTrial, trials_done, tuned, with_settings
from train import Diverged
from utils import cli
from utils.cli import display_path
from utils.config import Device, OptionalFolder, RelevanceThreshold, parse
from utils.files import RUNS, UserError, note, read_json, write_table, write_text
from utils.metrics import auc_by_user, beyond_accuracy, mae, mean_metrics, metric_names, metrics_at, rmse
from utils.runs import TEST_METRICS

BEYOND = ("coverage", "overlap", "popularity", "novelty")


@dataclass(frozen=True)
class Settings:
    data: DataConfig = field(default_factory=lambda: DataConfig(ratios=(0.75, 0.05, 0.2)))
    models: tuple[str, ...] = (*BASELINES, *PRESETS)
    """baselines and presets of train.py to compare"""
    tune: NonNegInt = 0
    """trials of every model's settings on the validation rows; 0: fixed settings"""
    seeds: tuple[NonNegInt, ...] = (0, 1, 2)
    """seeds of models that draw random numbers"""
    jobs: PositiveInt = 1
    """how many models are trained in parallel; they share the cores"""
    relevance_threshold: RelevanceThreshold = None
    k: PositiveInt = 10
    """length N of the evaluated top-N lists"""
    chunk_users: PositiveInt = 256
    """users scored at a time; bounds memory"""
    device: Device = "auto"
    """where presets train; baselines compute on the CPU"""
    output: OptionalFolder = None
    """folder (default: runs/compare-<data>-<split>)"""


def main() -> None:
    settings = parse(Settings, __doc__)
    if not settings.seeds or not settings.models:
        raise UserError("--models and --seeds: give at least one of each.")
    if unknown := set(settings.models) - {*BASELINES, *PRESETS}:
        raise UserError(f"There is no model {', '.join(unknown)}: choose from {', '.join((*BASELINES, *PRESETS))}.")
    if settings.tune and find_spec("optuna") is None:
        raise UserError("--tune needs optuna: pip install -r requirements-baselines.txt.")
    data, split = settings.data.load()
    if settings.tune and not len(split.val):
        raise UserError("--tune needs validation rows: give --ratios with a VAL above 0.")
    threshold = data.scale.threshold(settings.relevance_threshold)
    evaluator = RankingEvaluator(data, split, threshold, settings.k, settings.chunk_users)
    output = settings.output or RUNS / f"compare-{data.name}-{settings.data.split}"
    check_protocol(output, protocol_of(evaluator, settings.data) | {"tune": settings.tune})
    done, missing = finished_rows(output / "comparison.csv", settings.k), {}
    pairs = wanted(settings, data.scale.is_constant, data.time is not None)
    pairs = [pair for pair in pairs if not is_done(done, *pair)]
    if settings.tune:
        to_tune = list(dict.fromkeys(name for name, _ in pairs))
        for _ in in_processes(tune, [(evaluator, settings, output, name) for name in to_tune], settings.jobs):
            pass  # the trials are in a file
    for row in in_processes(measure, [(evaluator, settings, output, *pair) for pair in pairs], settings.jobs):
        if "missing" in row:
            missing[row["model"]] = row["missing"]
            continue
        done = pd.DataFrame([*done.to_dict("records"), row])
        write_table(output / "comparison.csv", done)
    if done.empty:
        raise UserError("No model could be compared: name others, or pip install -r requirements-baselines.txt.")
    comparison = Comparison(evaluator, done, missing, output / UNITS)
    text = comparison.markdown()
    write_text(output / "comparison.md", text)
    comparison.draw(output / "comparison.png", f"{data.name}, {settings.data.split} split")
    print(f"\n{text}\nWrote comparison.csv, comparison.md and comparison.png into {display_path(output)}.")


def finished_rows(path: Path, k: int) -> pd.DataFrame:
    """The rows that an earlier call has measured.

    Raises:
        UserError: their columns are those of another version.
    """
    columns = list(empty_row("", 0, k))
    done = pd.read_csv(path) if path.is_file() else pd.DataFrame(columns=columns)
    if list(done) != columns:
        raise UserError(f"{path} was made by another version of this script: name another folder with --output.")
    return done


def wanted(settings: Settings, of_choices: bool, has_times: bool) -> list[tuple[str, int]]:
    """(model, seed) of every row; a model that draws no random numbers has only one.

    Args:
        of_choices: whether all ratings are equal; models that learn how high ratings are are then left out
        has_times: whether the data has times; models that need them are otherwise left out
    """
    pairs = []
    for name in settings.models:
        if of_choices and is_rating_model(name):
            note(f"{name} is left out: it learns how high ratings are, and these are all equal.")
            continue
        if not has_times and name in BASELINES and BASELINES[name].needs_times:
            note(f"{name} is left out: the data has no times.")
            continue
        pairs += [(name, seed) for seed in (settings.seeds if is_seeded(name) else settings.seeds[:1])]
    return pairs


def is_done(done: pd.DataFrame, name: str, seed: int) -> bool:
    """Whether there is this row or, for a model that draws no random numbers, one of any seed."""
    return bool(((done["model"] == name) & ((done["seed"] == seed) | (not is_seeded(name)))).any())


# --- one row -------------------------------------------------------------------------------------


def tune(evaluator: RankingEvaluator, settings: Settings, output: Path, name: str) -> dict[str, Any]:
    """The settings of a model's best trial; {} if there is none, as `measure` will report."""
    try:
        device = cli.resolve_device(settings.device)
        return tuned(name, evaluator, config_of(settings, name, 0), settings.tune, output, device)
    except (ImportError, NoTrial, Unsuitable):
        return {}


def measure(evaluator: RankingEvaluator, settings: Settings, output: Path, name: str, seed: int) -> dict[str, Any]:
    """Train one model and measure it: a row of comparison.csv, or why it is missing.

    `seconds` is the time of a preset's epochs or of a baseline's fit; `memory` is the peak memory of the process in
    GiB, including the data.
    """
    print(f"{name}, seed {seed} ...", flush=True)
    config, run = config_of(settings, name, seed), output / "runs" / f"{name}-{seed}"
    device = cli.resolve_device(settings.device)
    try:
        chosen = tuned(name, evaluator, config_of(settings, name, 0), settings.tune, output, device)
        started = time.perf_counter()
        if config:
            fitted = trained(run, with_settings(config, chosen), evaluator, device)
            seconds = read_json(run / TEST_METRICS)["wall_seconds"]
        else:
            fitted = BASELINES[name].fit(evaluator.data.select(evaluator.split.known), seed, **chosen)
            seconds = time.perf_counter() - started
    except ImportError as error:
        words = f"{error.name or error} is not installed: pip install -r requirements-baselines.txt"
        return {"model": name, "missing": words}
    except (NoTrial, Diverged, Unsuitable) as error:
        return {"model": name, "missing": str(error)}
    row = empty_row(name, seed, settings.k) | {"settings": json.dumps(chosen), "trials": trials_done(output, name)}
    cold = evaluator.new_movies() & (settings.data.split == "cold-movies")  # other splits have a few by chance
    units: dict[str, UnitMetric] = {}
    for can, measured in ((fitted.predict, rating_row), (fitted.score, ranking_row)):
        if can:
            more, of_units = measured(evaluator, fitted, cold)
            row, units = row | more, units | of_units
    save_units(output / UNITS / f"{name}-{seed}.npz", units)
    return row | {"seconds": round(seconds, 1), "memory": peak_memory()}


def config_of(settings: Settings, name: str, seed: int) -> TrainConfig | None:
    """The configuration of a preset on these data; None for a baseline."""
    if name not in PRESETS:
        return None
    config = PRESETS[name]
    ranking = config.ranking and RankingConfig(settings.relevance_threshold)
    return dataclasses.replace(config, data=settings.data.located(), ranking=ranking, run=RunConfig(seed=seed))


def empty_row(name: str, seed: int, k: int) -> dict[str, Any]:
    """A row of comparison.csv without any figures."""
    cold = ("cold_rmse", "cold_auc", f"cold_ndcg@{k}")
    columns = ("rmse", "mae", "auc", *metric_names(k), *BEYOND, *cold, "seconds", "memory", "settings", "trials")
    return {"model": name, "seed": seed, **dict.fromkeys(columns)}


def rating_row(
    evaluator: RankingEvaluator, fitted: FittedModel, cold: np.ndarray
) -> tuple[dict[str, float], dict[str, UnitMetric]]:
    """RMSE, MAE and AUC of the test rows, RMSE and AUC of those of cold movies, and the RMSE by movie."""
    data, test = evaluator.data, evaluator.split.test
    rating = data.rating[test]
    prediction = RatingEvaluator(data, evaluator.split).predict(fitted, test)
    scores = scores_of_test_rows(fitted, prediction, evaluator)

    def auc(rows: np.ndarray) -> float:
        found = auc_by_user(data.user[test][rows], scores[rows], rating[rows] >= evaluator.relevance_threshold)
        return float(found.mean()) if len(found) else float("nan")

    found = {"rmse": rmse(prediction, rating), "mae": mae(prediction, rating), "auc": auc(np.full(len(test), True))}
    if cold.any():
        rows = cold[data.movie[test]]
        found |= {"cold_rmse": rmse(prediction[rows], rating[rows]), "cold_auc": auc(rows)}
    by_movie = rated_units(squared_by_unit(prediction - rating, data.movie[test]))
    return {name: round(value, 5) for name, value in found.items()}, {"rmse": by_movie}


def ranking_row(
    evaluator: RankingEvaluator, fitted: FittedModel, cold: np.ndarray
) -> tuple[dict[str, float], dict[str, UnitMetric]]:
    """Metrics of the recommendations, NDCG among cold movies, and NDCG by user."""
    data, k, known, test = evaluator.data, evaluator.k, evaluator.split.known, evaluator.split.test
    ranking = evaluator.rank(fitted.score, known, test)
    found = mean_metrics(ranking, k)
    units = {f"ndcg@{k}": mean_over_users(metrics_at(ranking.ranks, ranking.n_relevant, k)[f"ndcg@{k}"])}
    found |= beyond_accuracy(ranking.topn, evaluator.popularity(known), len(data.user_ids))
    if cold.any():
        ranking = evaluator.rank(fitted.score, known, test[cold[data.movie[test]]], among=cold)
        found[f"cold_ndcg@{k}"] = mean_metrics(ranking, k)[f"ndcg@{k}"]
        by_user = metrics_at(ranking.ranks, ranking.n_relevant, k)[f"ndcg@{k}"]
        units[f"cold_ndcg@{k}"] = mean_over_users(by_user)
    return {name: round(value, 5) for name, value in found.items()}, units


if __name__ == "__main__":
    cli.run(main)
