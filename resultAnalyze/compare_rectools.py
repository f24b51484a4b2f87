#!/usr/bin/env python3
"""SASRec and HSTU of the RecTools library, trained and tested on this project's split, measured by this project's code.

    make .venv-rectools/requirements-rectools.txt            # once: RecTools needs other versions than this project
    python resultAnalyze/compare_rectools.py --models SASRec HSTU

The library is given the known ratings, whose validation rows choose its epoch by HR@10, and the time of each tested
rating, which HSTU uses as the time of the request. It returns the ten movies that it ranks highest among those that the
user has not rated. Writes rectools.csv (one row per model and seed) and rectools.md into --output; finished
rows are kept, and an interrupted training resumes after its last whole epoch.
"""

import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import numpy as np
import pandas as pd
import torch

from Models.configs import DataConfig
from Models.evaluation.rankings import K, RankingEvaluator
from Models.inputs import NonNegInt, PositiveInt
from resultAnalyze.experiment import check_protocol
from resultAnalyze.markdown import markdown_table, mean_and_range
from utils import cli
from utils.cli import display_path
from utils.config import OptionalFolder, optional, parse
from utils.files import ROOT, RUNS, UserError, read_json, write_table, write_text
from utils.metrics import metrics_at

SCRIPT = ROOT / "resultAnalyze" / "rectools_models.py"
PYTHON = ROOT / ".venv-rectools" / "bin" / "python"
SETTINGS = "2026-11-27"  # version of those in rectools_models.py: change it with them, so that no results are mixed
TARGET = ".venv-rectools/requirements-rectools.txt"


@dataclass(frozen=True)
class Settings:
    data: DataConfig = field(default_factory=lambda: DataConfig(split="leave-one-out"))
    models: tuple[Literal["SASRec", "HSTU", "HSTU-large"], ...] = ("SASRec", "HSTU")
    """models of the library"""
    seeds: tuple[NonNegInt, ...] = (0,)
    """seeds of the training runs"""
    epochs: PositiveInt = 100
    """maximum epochs of a training"""
    minutes: PositiveInt = 600
    """maximum minutes of a training"""
    python: optional(Path, "FILE", "default: .venv-rectools/bin/python") = None
    """the Python with RecTools installed"""
    output: OptionalFolder = None
    """folder (default: runs/rectools-<data>)"""


def main() -> None:
    settings = parse(Settings, __doc__)
    python = settings.python or PYTHON
    if not python.is_file():
        raise UserError(f"There is no {display_path(python)}: make {TARGET}, or name one with --python.")
    data, split = settings.data.load()
    if data.time is None:
        raise UserError(f"{data.name} has no times, which these models need.")
    if np.bincount(data.user[split.test]).max() > 1:
        raise UserError("These models are asked for each user's next movie: take --split leave-one-out.")
    evaluator = RankingEvaluator(data, split, relevance_threshold=data.rating.min())
    output = settings.output or RUNS / f"rectools-{data.name}"
    protocol = {"ratings_sha256": data.fingerprint(), "split": split.protocol, "epochs": settings.epochs}
    check_protocol(output, protocol | {"settings": SETTINGS})
    write_rows(evaluator, output)
    rows = []
    for model in settings.models:
        for seed in settings.seeds:
            path = output / f"{model}-{seed}"
            if not path.with_suffix(".json").is_file():
                print(f"{model}, seed {seed} ...", flush=True)
                train(python, output, model, seed, settings)
            rows.append({"model": model, "seed": seed} | measure(evaluator, path))
    table = pd.DataFrame(rows)
    write_table(output / "rectools.csv", table)
    text = f"{data.name}: {split.protocol}; whole catalogue, known movies out.\n\n{markdown(table)}"
    write_text(output / "rectools.md", text)
    print(f"\n{text}\nWrote rectools.csv and rectools.md into {display_path(output)}.")


def write_rows(evaluator: RankingEvaluator, output: Path) -> None:
    """known.csv: the known ratings by user and time; asked.csv: the time of each tested user's request."""
    data, rows = evaluator.data, evaluator.data.by_user_and_time(evaluator.split.known)
    known = {"user_id": data.user[rows], "item_id": data.movie[rows], "datetime": data.time[rows], "weight": 1}
    write_table(output / "known.csv", pd.DataFrame(known | {"validates": np.isin(rows, evaluator.split.val)}))
    users = np.unique(data.user[evaluator.split.test])
    times = evaluator.request_times.of(evaluator.split.known, evaluator.split.test)
    write_table(output / "asked.csv", pd.DataFrame({"user_id": users, "datetime": times[users]}))


def train(python: Path, output: Path, model: str, seed: int, settings: Settings) -> None:
    """Train in the library's environment; raises UserError with the last line of its error output if that fails."""
    flags = ["--folder", output, "--model", model, "--seed", seed, "--k", K]
    flags += ["--epochs", settings.epochs, "--minutes", settings.minutes]
    done = subprocess.run([str(python), str(SCRIPT), *map(str, flags)], stderr=subprocess.PIPE)
    if not done.returncode and not (output / f"{model}-{seed}.json").is_file():
        raise UserError(f"{model} of RecTools was stopped: repeat the command to resume it.")
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
        raise UserError(f"{model} of RecTools failed ({last[0][:200]}): make {TARGET} again.")


def measure(evaluator: RankingEvaluator, path: Path) -> dict[str, Any]:
    """HR and NDCG of lists, for all users and for requests in a later second than the user's latest known rating."""
    data, test = evaluator.data, evaluator.split.test
    lists = pd.read_csv(path.with_suffix(".csv")).set_index(["user_id", "item_id"])["rank"]
    tested = pd.MultiIndex.from_arrays([data.user[test], data.movie[test]])
    ranks = torch.from_numpy(lists.reindex(tested).fillna(np.inf).to_numpy(np.float64))[:, None]
    by_user = metrics_at(ranks, torch.ones(len(ranks), dtype=torch.int64), K)
    later = torch.from_numpy(evaluator.request_times.in_later_second()[data.user[test]])
    found = {name: float(by_user[name].mean()) for name in (f"hr@{K}", f"ndcg@{K}")}
    found |= {f"later second {name}": float(by_user[name][later].mean()) for name in (f"hr@{K}", f"ndcg@{K}")}
    return found | read_json(path.with_suffix(".json"))


def markdown(table: pd.DataFrame) -> str:
    """A row per model: means over seeds, and whether it is given the time of the request."""
    rows = []
    for model, group in table.groupby("model", sort=False):
        figures = {name: mean_and_range(group[name]) for name in group if "@" in name}
        row = {"model": model, "seeds": len(group), "request time": "known" if group["request_time"].all() else "-"}
        rows.append(row | figures | {"epochs": f"{group['epochs'].mean():.0f}", "s": f"{group['seconds'].mean():.0f}"})
        rows[-1]["converged"] = "yes" if group["converged"].eq(True).all() else "no"
    return markdown_table(pd.DataFrame(rows))


if __name__ == "__main__":
    cli.run(main)
