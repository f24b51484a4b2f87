#!/usr/bin/env python3
"""How often does an interval claim a difference where there is none? Compares runs that differ only in their seeds.

    python resultAnalyze/null_experiment.py --data dataset/ml-100k --preset ncf-ranking
    python resultAnalyze/null_experiment.py --data dataset/ml-100k --preset ncf --trainings 24

One configuration is trained with many seeds. Two disjoint sets of these runs are drawn many times and compared as if
they were two models: the truth is "no difference". A 95 % interval (intervals.py) that excludes 0 is a false claim; at
most 5 % should exclude it. Intervals over users or movies alone, which are often reported, are counted as well. The
draws share training runs and test rows, so the shares themselves are estimates.

Writes null_experiment.csv (a row per metric and number of seeds) and null_experiment.md into --output. Finished
training runs are kept there, so an interrupted experiment resumes where it stopped.
"""

import dataclasses
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import numpy as np
import pandas as pd

from Models.configs import PRESETS, DataConfig, RankingConfig
from Models.evaluation.rankings import RankingEvaluator
from Models.evaluation.ratings import RatingEvaluator
from Models.inputs import PositiveInt
from resultAnalyze.experiment import check_protocol, in_processes, protocol_of, trained
from resultAnalyze.intervals import UnitMetric, difference, mean_over_users, rated_units, squared_by_unit
from resultAnalyze.markdown import markdown_table
from utils import cli
from utils.cli import display_path
from utils.config import Device, OptionalFolder, parse
from utils.files import RUNS, UserError, write_table, write_text
from utils.metrics import metrics_at

METRICS = ("hr", "ndcg", "recall")
SEED = 0  # of the draws


@dataclass(frozen=True)
class Settings:
    data: DataConfig = field(default_factory=lambda: DataConfig(ratios=(0.75, 0.05, 0.2)))
    preset: Literal[tuple(PRESETS)] = "ncf-ranking"
    """the preset of train.py to train with many seeds"""
    trainings: PositiveInt = 24
    """how many seeds"""
    compared: tuple[PositiveInt, ...] = (3, 5)
    """numbers of seeds in each of the two sets that are compared"""
    jobs: PositiveInt = 1
    """how many models are trained in parallel; they share the cores"""
    draws: PositiveInt = 2000
    """comparisons for each metric and number of seeds"""
    device: Device = "auto"
    """where the preset trains"""
    output: OptionalFolder = None
    """folder (default: runs/null-<data>-<preset>)"""


def main() -> None:
    settings = parse(Settings, __doc__)
    if not settings.compared or min(settings.compared) < 2 or 2 * max(settings.compared) > settings.trainings:
        raise UserError("--compared: give numbers of seeds from 2 to half of --trainings.")
    data, split = settings.data.load()
    evaluator = RankingEvaluator(data, split, data.scale.threshold())
    output = settings.output or RUNS / f"null-{data.name}-{settings.preset}"
    check_protocol(output, protocol_of(evaluator, settings.data) | {"preset": settings.preset})
    calls = [(evaluator, settings, output, seed) for seed in range(settings.trainings)]
    measured = dict(in_processes(measure, calls, settings.jobs))
    trainings = [measured[seed] for seed in range(settings.trainings)]
    found = false_claims(trainings, settings.compared, settings.draws)
    write_table(output / "null_experiment.csv", found)
    text = markdown(found, settings, f"{data.name}: {split.protocol}")
    write_text(output / "null_experiment.md", text)
    print(f"\n{text}\nWrote null_experiment.csv and null_experiment.md into {display_path(output)}.")


def measure(
    evaluator: RankingEvaluator, settings: Settings, output: Path, seed: int
) -> tuple[int, dict[str, UnitMetric]]:
    """The seed and the metrics of one training: by user where it ranks, by movie where it predicts ratings."""
    print(f"{settings.preset}, seed {seed} ...", flush=True)
    preset = PRESETS[settings.preset]
    run_config = dataclasses.replace(preset.run, seed=seed)
    ranking = preset.ranking and RankingConfig()
    config = dataclasses.replace(preset, data=settings.data.located(), ranking=ranking, run=run_config)
    fitted = trained(
        output / "runs" / f"{settings.preset}-{seed}", config, evaluator, cli.resolve_device(settings.device)
    )
    data, test, k = evaluator.data, evaluator.split.test, evaluator.k
    if not preset.ranking:
        error = RatingEvaluator(data, evaluator.split).predict(fitted, test) - data.rating[test]
        return seed, {"rmse": rated_units(squared_by_unit(error, data.movie[test]))}
    ranks = evaluator.rank(fitted.score, evaluator.split.known, test)
    by_user = metrics_at(ranks.ranks, ranks.n_relevant, k)
    return seed, {f"{name}@{k}": mean_over_users(by_user[f"{name}@{k}"]) for name in METRICS}


def false_claims(trainings: list[dict[str, UnitMetric]], compared: tuple[int, ...], draws: int) -> pd.DataFrame:
    """For each metric and number of seeds, the share of intervals that exclude 0: with seeds, and over units alone."""
    random, rows = np.random.default_rng(SEED), []
    for metric in trainings[0]:
        for n in compared:
            wrong = dict.fromkeys((True, False), 0)
            for _ in range(draws):
                drawn = [trainings[k][metric] for k in random.choice(len(trainings), 2 * n, replace=False)]
                for over_seeds in wrong:
                    found = difference(drawn[:n], drawn[n:], over_seeds)
                    wrong[over_seeds] += not found.low <= 0 <= found.high
            shares = {"false claims": wrong[True] / draws, "false claims over units alone": wrong[False] / draws}
            rows.append({"metric": metric, "seeds": n, **shares})
    return pd.DataFrame(rows)


def markdown(found: pd.DataFrame, settings: Settings, protocol: str) -> str:
    shown = found.copy()
    for name in shown.columns[2:]:
        shown[name] = [f"{100 * value:.1f} %" for value in found[name]]
    words = f"{settings.trainings} trainings of {settings.preset}, {settings.draws:,} comparisons of each kind"
    return f"{protocol}; {words}.\n\n{markdown_table(shown)}"


if __name__ == "__main__":
    cli.run(main)
