#!/usr/bin/env python3
"""Compare this project's model with well-known baselines: same rows, same masks, same metric code.

    python resultAnalyze/compare_baselines.py --data dataset/ml-100k
    python resultAnalyze/compare_baselines.py --models "most popular" EASE Recommender --seeds 0 1 2

Baselines train on the training and validation rows, whose settings are fixed beforehand; the project's model trains on
the training rows and chooses its epoch on the validation rows. Relevant: test ratings of at least --relevant stars.
Ranking is over the whole catalogue, without the movies of the training and validation rows, ties against the model.

Writes comparison.csv (a row a model and seed), comparison.md and comparison.png into --output. Finished rows are kept,
so an interrupted comparison goes on where it stopped. Some baselines need: pip install -r requirements-baselines.txt
"""

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import numpy as np
import torch

from Models.baselines import BASELINES, Fitted, Rows
from Models.checkpoint import read_checkpoint, rebuild
from Models.dataLoader import RatingsData, load_data, split_rows
from Models.evaluate import mae, rmse
from Models.lists import UserLists
from Models.ranking import beyond_accuracy, mean_metrics, metrics_at, rank_all
from Models.splits import Ratios, Split, SplitName
from utils import cli
from utils.cli import flag, positive, shown
from utils.files import ROOT, RUNS, UserError, read_json, write_aside, write_json
from utils.runs import TEST_METRICS, read_table, write_table

DEEP = ("Recommender", "Recommender, original")
RANKED = ("hr", "ndcg", "recall", "precision", "mrr", "map")
BEYOND = ("coverage", "overlap", "popularity", "novelty")


@dataclass(frozen=True)
class Settings:
    data: Path = cli.data_flag()
    features: Path = cli.features_flag()
    split: SplitName = flag("random", "how the ratings are parted")
    ratios: Ratios = flag((0.75, 0.05, 0.2), "shares of the parts", metavar=("TRAIN", "VAL", "TEST"))
    models: list[str] = flag((*BASELINES, *DEEP), "which models", metavar="NAME", nargs="+", type=str)
    seeds: list[int] = flag((0, 1, 2), "seeds of the models that draw random numbers", metavar="N", nargs="+", type=int)
    relevant: float = flag(4.0, "stars from which a test rating is relevant")
    k: int = flag(10, "places of a list that count", type=positive)
    chunk_users: int = flag(256, "users scored together: bounds memory", type=positive)
    output: Path | None = flag(None, "folder (default: runs/compare-<data>-<split>)", metavar="DIR")


@dataclass(frozen=True)
class Task:
    """What every model is given and measured on."""

    settings: Settings
    data: RatingsData
    split: Split
    rows: Rows
    seen: UserLists
    relevant: UserLists
    output: Path


def main() -> None:
    settings = cli.parse(Settings, __doc__, None)
    if unknown := set(settings.models) - {*BASELINES, *DEEP}:
        raise UserError(f"There is no model {', '.join(unknown)}: choose from {', '.join((*BASELINES, *DEEP))}.")
    task = prepare(settings)
    check_protocol(task)
    done = read_table(task.output / "comparison.csv") if (task.output / "comparison.csv").is_file() else []
    missing = {}
    for name, seed in wanted(settings):
        if any(row["model"] == name and row["seed"] == str(seed) for row in done):
            continue
        print(f"{name}, seed {seed} ...", flush=True)
        try:
            done.append(measure(task, name, seed))
        except ImportError as error:
            missing[name] = f"{error.name} is not installed: pip install -r requirements-baselines.txt"
            continue
        write_table(task.output / "comparison.csv", done)
    if not done:
        raise UserError("No model could be compared: pip install -r requirements-baselines.txt.")
    text = markdown(task, done, missing)
    with write_aside(task.output / "comparison.md") as aside:
        aside.write_text(text, encoding="utf-8")
    draw(task, done)
    print(f"\n{text}\nWrote comparison.csv, comparison.md and comparison.png into {shown(task.output)}.")


def wanted(settings: Settings) -> list[tuple[str, int]]:
    """(model, seed) of every row; a model that draws no random numbers has one."""
    pairs = []
    for name in settings.models:
        seeded = name in DEEP or BASELINES[name][1]
        pairs += [(name, seed) for seed in (settings.seeds if seeded else settings.seeds[:1])]
    return pairs


def prepare(settings: Settings) -> Task:
    data = load_data(settings.data, settings.features)
    split = split_rows(data, settings.split, settings.ratios)
    known = np.concatenate([split.train, split.val])
    liked = split.test[data.rating[split.test] >= settings.relevant]
    if not len(liked):
        raise UserError(f"No test rating has {settings.relevant:g} stars or more: lower --relevant.")
    n_users, n_movies = len(data.user_ids), len(data.movies)
    return Task(
        settings,
        data,
        split,
        Rows(data.user[known], data.movie[known], data.rating[known], n_users, n_movies),
        UserLists.of(data.user[known], data.movie[known], n_users),
        UserLists.of(data.user[liked], data.movie[liked], n_users),
        settings.output or RUNS / f"compare-{data.name}-{settings.split}",
    )


def check_protocol(task: Task) -> None:
    """Rows of two protocols must not meet in one table."""
    protocol = {
        "data": task.data.name,
        "features": task.data.features.info.features_sha256,
        "split": task.split.protocol,
        "relevant": task.settings.relevant,
        "k": task.settings.k,
    }
    path = task.output / "protocol.json"
    if path.is_file() and read_json(path) != protocol:
        raise UserError(f"{task.output} holds a comparison under another protocol: name another folder with --output.")
    write_json(path, protocol)


# --- one row -------------------------------------------------------------------------------------


def measure(task: Task, name: str, seed: int) -> dict[str, Any]:
    """Train one model and measure it: a row of comparison.csv, empty where the model has no such output."""
    started = time.perf_counter()
    fitted = fit_deep(task, name, seed) if name in DEEP else BASELINES[name][0](task.rows, seed)
    row: dict[str, Any] = {"model": name, "seed": seed, "rmse": "", "mae": "", "rmse_se": ""}
    if fitted.stars:
        row |= rating_row(task, fitted)
    k = task.settings.k
    row |= {f"{metric}@{k}": "" for metric in RANKED} | {f"ndcg@{k}_se": ""} | dict.fromkeys(BEYOND, "")
    if fitted.score:
        row |= ranking_row(task, fitted)
    return row | {"seconds": round(time.perf_counter() - started, 1)}


def rating_row(task: Task, fitted: Fitted) -> dict[str, float]:
    """RMSE, MAE and the standard error of the RMSE over test rows (delta method), clipped to the training scale."""
    test, train = task.split.test, task.rows.rating
    stars = np.clip(fitted.stars(task.data.user[test], task.data.movie[test]), train.min(), train.max())
    found = torch.from_numpy(stars), torch.from_numpy(task.data.rating[test])
    squared = (found[0].double() - found[1].double()).square()
    se = float(squared.std() / len(squared) ** 0.5 / (2 * rmse(*found)))
    return {"rmse": round(rmse(*found), 5), "mae": round(mae(*found), 5), "rmse_se": round(se, 5)}


def ranking_row(task: Task, fitted: Fitted) -> dict[str, float]:
    """Ranking metrics, the standard error of NDCG over users, and what the lists are like."""
    k, n_users = task.settings.k, task.rows.n_users
    ranking = rank_all(fitted.score, task.seen, task.relevant, top_n=k, chunk_users=task.settings.chunk_users)
    found = mean_metrics(ranking, [k])
    ndcg = metrics_at(ranking.ranks, ranking.n_relevant, k)[f"ndcg@{k}"]
    found[f"ndcg@{k}_se"] = float(ndcg.std() / len(ndcg) ** 0.5)
    popularity = torch.from_numpy(np.bincount(task.rows.movie, minlength=task.rows.n_movies))
    found |= beyond_accuracy(ranking.lists, popularity, n_users)
    return {name: round(value, 5) for name, value in found.items()}


def fit_deep(task: Task, name: str, seed: int) -> Fitted:
    """Train with the user's own command, `train.py`, and load the checkpoint that validation chose."""
    s = task.settings
    run = task.output / "runs" / f"{name.replace(', ', '-')}-{seed}"
    if not (run / TEST_METRICS).is_file():
        flags = ["--data", s.data, "--features", s.features, "--split", s.split, "--ratios", *s.ratios, "--seed", seed]
        flags += ["--preset", "original" if "original" in name else "default", "--run", run]
        command = [sys.executable, ROOT / "train.py", *flags]
        done = subprocess.run([str(word) for word in command], stdout=subprocess.DEVNULL)
        if done.returncode:
            raise UserError(f"Training {name} failed: see above; delete {run} before trying again.")
    model, _ = rebuild(read_checkpoint(run / "best.pt"), torch.device("cpu"))

    def stars(user: np.ndarray, movie: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return model({"user": torch.from_numpy(user), "movie": torch.from_numpy(movie)})[0].numpy()

    return Fitted(stars, model.score)


# --- what is shown -------------------------------------------------------------------------------


def means(done: list[dict[str, Any]], name: str, column: str) -> tuple[float, float] | None:
    """Mean over a model's seeds, and half the range between them; None where it has no such output."""
    values = [float(row[column]) for row in done if row["model"] == name and row[column] != ""]
    return (sum(values) / len(values), (max(values) - min(values)) / 2) if values else None


def markdown(task: Task, done: list[dict[str, Any]], missing: dict[str, str]) -> str:
    """The comparison as a table: means over the seeds, and after +- half the range between the seeds."""
    k = task.settings.k
    columns = ["rmse", "mae", f"hr@{k}", f"ndcg@{k}", f"recall@{k}", "coverage", "overlap", "novelty", "seconds"]
    lines = [
        f"{task.data.name}: {task.split.protocol}; relevant: test ratings of {task.settings.relevant:g} stars or more; "
        f"whole catalogue of {task.rows.n_movies:,} movies ranked, known ones out, ties against the model; "
        "+-: half the range between seeds.",
        "",
        f"| model | seeds | {' | '.join(columns)} |",
        "| --- " * (len(columns) + 2) + "|",
    ]
    for name in (*BASELINES, *DEEP):
        if not (seeds := sum(row["model"] == name for row in done)):
            continue
        cells = [cell(column, means(done, name, column)) for column in columns]
        lines.append(f"| {name} | {seeds} | {' | '.join(cells)} |")
    lines += [f"| {name} | | {why} {'| ' * len(columns)}|" for name, why in missing.items()]
    return "\n".join(lines) + "\n"


def cell(column: str, found: tuple[float, float] | None) -> str:
    if found is None:
        return ""
    if column == "seconds":
        return f"{found[0]:.1f}"
    return f"{found[0]:.4f}" + (f" +- {found[1]:.4f}" if found[1] else "")


def draw(task: Task, done: list[dict[str, Any]]) -> None:
    """Bars of RMSE and NDCG, with 95 % intervals over test rows and users for the first seed."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    k = task.settings.k
    figure, axes = plt.subplots(1, 2, figsize=(12, 0.4 * len({row["model"] for row in done}) + 2), layout="constrained")
    for axis, column in zip(axes, ("rmse", f"ndcg@{k}"), strict=True):
        first = {row["model"]: row for row in reversed(done) if row[column] != ""}
        names = sorted(first, key=lambda name: float(first[name][column]), reverse=column == "rmse")
        values = [float(first[name][column]) for name in names]
        errors = [1.96 * float(first[name][f"{column}_se"]) for name in names]
        axis.barh(names, values, xerr=errors, color="tab:blue", alpha=0.7, capsize=3)
        axis.set_title({"rmse": "RMSE, lower is better"}.get(column, f"NDCG@{k}, higher is better"))
        if column == "rmse" and values:
            axis.set_xlim(0.95 * min(values), 1.02 * max(values))
        axis.grid(axis="x", alpha=0.3)
    figure.suptitle(f"{task.data.name}, {task.settings.split} split")
    with write_aside(task.output / "comparison.png") as aside:
        figure.savefig(aside, format="png", dpi=120)


if __name__ == "__main__":
    cli.run(main)
