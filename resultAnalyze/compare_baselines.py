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

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import numpy as np
import torch

from Models.baselines import BASELINES, Fitted
from Models.comparison import Task, keep_protocol, train_run
from Models.dataLoader import load_data, split_rows
from Models.evaluate import auc_by_user, mae, rmse
from Models.ranking import beyond_accuracy, mean_metrics, metrics_at
from Models.splits import Ratios, SplitName
from utils import cli
from utils.cli import flag, positive, shown
from utils.files import RUNS, UserError, read_json, write_aside
from utils.runs import TEST_METRICS, read_table, write_table

# One of our models is a line here: its name, and the preset of train.py that makes it.
DEEP = {
    **{"HistoryRecommender": "default", "Recommender": "ncf", "Recommender, original": "original"},
    **{"Recommender, ranking": "ncf-ranking", "Autoencoder + EASE": "autoencoder"},
    **{"Transformer": "transformer", "GRU": "gru"},
}
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


def main() -> None:
    settings = cli.parse(Settings, __doc__, None)
    if unknown := set(settings.models) - {*BASELINES, *DEEP}:
        raise UserError(f"There is no model {', '.join(unknown)}: choose from {', '.join((*BASELINES, *DEEP))}.")
    data = load_data(settings.data, settings.features)
    split = split_rows(data, settings.split, settings.ratios)
    known = np.concatenate([split.train, split.val])
    task = Task.of(data, split, known, settings.relevant, settings.k, settings.chunk_users)
    output = settings.output or RUNS / f"compare-{data.name}-{settings.split}"
    protocol = {"data": data.name, "ratings_sha256": data.fingerprint(), "split": split.protocol}
    protocol["features"] = data.features.info.features_sha256
    keep_protocol(output, protocol | {"relevant": settings.relevant, "k": settings.k})
    done = finished_rows(output / "comparison.csv", settings.k)
    missing = {}
    for name, seed in wanted(settings):
        if any(row["model"] == name and row["seed"] == str(seed) for row in done):
            continue
        print(f"{name}, seed {seed} ...", flush=True)
        try:
            done.append(measure(task, settings, output, name, seed))
        except ImportError as error:
            missing[name] = f"{error.name} is not installed: pip install -r requirements-baselines.txt"
            continue
        write_table(output / "comparison.csv", done)
    if not done:
        raise UserError("No model could be compared: pip install -r requirements-baselines.txt.")
    text = markdown(task, done, missing)
    with write_aside(output / "comparison.md") as aside:
        aside.write_text(text, encoding="utf-8")
    draw(done, settings.k, output / "comparison.png", f"{data.name}, {settings.split} split")
    print(f"\n{text}\nWrote comparison.csv, comparison.md and comparison.png into {shown(output)}.")


def finished_rows(path: Path, k: int) -> list[dict[str, Any]]:
    """The rows that an earlier call measured.

    Raises:
        UserError: their columns are those of another version.
    """
    done = read_table(path) if path.is_file() else []
    if done and list(done[0]) != list(empty_row("", 0, k)):
        raise UserError(f"{path} was made by another version of this script: name another folder with --output.")
    return done


def wanted(settings: Settings) -> list[tuple[str, int]]:
    """(model, seed) of every row; a model that draws no random numbers has one."""
    pairs = []
    for name in settings.models:
        seeded = name in DEEP or BASELINES[name][1]
        pairs += [(name, seed) for seed in (settings.seeds if seeded else settings.seeds[:1])]
    return pairs


# --- one row -------------------------------------------------------------------------------------


def measure(task: Task, settings: Settings, output: Path, name: str, seed: int) -> dict[str, Any]:
    """Train one model and measure it: a row of comparison.csv; `seconds` are those of the training."""
    started = time.perf_counter()
    if name in DEEP:
        run = output / "runs" / f"{name.replace(', ', '-').replace(' + ', '-')}-{seed}"
        fitted = fit_deep(task, settings, run, name, seed)
        seconds = read_json(run / TEST_METRICS)["wall_seconds"]
    else:
        fitted = BASELINES[name][0](task.rows, seed)
        seconds = time.perf_counter() - started
    row = empty_row(name, seed, task.k)
    cold = task.cold() & (settings.split == "cold-movies")  # elsewhere they are a few by chance
    if fitted.stars:
        row |= rating_row(task, fitted, cold)
    if fitted.score:
        row |= ranking_row(task, fitted, cold)
    return row | {"seconds": round(seconds, 1)}


def empty_row(name: str, seed: int, k: int) -> dict[str, Any]:
    """A row of comparison.csv of a model without any output."""
    ranked = [*(f"{metric}@{k}" for metric in RANKED), f"ndcg@{k}_se"]
    columns = ("rmse", "mae", "rmse_se", "auc", *ranked, *BEYOND, "cold_rmse", "cold_auc", f"cold_ndcg@{k}", "seconds")
    return {"model": name, "seed": seed, **dict.fromkeys(columns, "")}


def rating_row(task: Task, fitted: Fitted, cold: np.ndarray) -> dict[str, float]:
    """RMSE, MAE and AUC of the test rows, the standard error of the RMSE (delta method), and those of cold movies."""
    test = task.split.test
    stars, rating = task.stars(fitted), task.data.rating[test]

    def on(rows: np.ndarray) -> tuple[torch.Tensor, torch.Tensor, float]:
        auc = auc_by_user(task.data.user[test][rows], stars[rows], rating[rows] >= task.relevant)
        return (
            torch.from_numpy(stars[rows]),
            torch.from_numpy(rating[rows]),
            float(auc.mean()) if len(auc) else float("nan"),
        )

    *both, auc = on(np.full(len(test), True))
    squared = (both[0].double() - both[1].double()).square()
    se = float(squared.std() / len(squared) ** 0.5 / (2 * rmse(*both)))
    found = {"rmse": rmse(*both), "mae": mae(*both), "rmse_se": se, "auc": auc}
    if cold.any():
        *both, auc = on(cold[task.data.movie[test]])
        found |= {"cold_rmse": rmse(*both), "cold_auc": auc}
    return {name: round(value, 5) for name, value in found.items()}


def ranking_row(task: Task, fitted: Fitted, cold: np.ndarray) -> dict[str, float]:
    """Ranking metrics, the standard error of NDCG over users, what the lists are like, and NDCG among cold movies."""
    k = task.k
    ranking = task.rank(fitted.score)
    found = mean_metrics(ranking, [k])
    ndcg = metrics_at(ranking.ranks, ranking.n_relevant, k)[f"ndcg@{k}"]
    found[f"ndcg@{k}_se"] = float(ndcg.std() / len(ndcg) ** 0.5)
    popularity = torch.from_numpy(np.bincount(task.rows.movie, minlength=task.rows.n_movies))
    found |= beyond_accuracy(ranking.lists, popularity, task.rows.n_users)
    if cold.any():
        found[f"cold_ndcg@{k}"] = mean_metrics(task.rank(fitted.score, cold, cold), [k])[f"ndcg@{k}"]
    return {name: round(value, 5) for name, value in found.items()}


def fit_deep(task: Task, settings: Settings, run: Path, name: str, seed: int) -> Fitted:
    flags = ["--data", settings.data, "--features", settings.features, "--split", settings.split]
    flags += ["--ratios", *settings.ratios, "--relevant", settings.relevant]
    return train_run(run, [*flags, "--seed", seed, "--preset", DEEP[name]], task)


# --- what is shown -------------------------------------------------------------------------------


def means(done: list[dict[str, Any]], name: str, column: str) -> tuple[float, float] | None:
    """Mean over a model's seeds, and half the range between them; None where it has no such output."""
    values = [float(row[column]) for row in done if row["model"] == name and row[column] != ""]
    return (sum(values) / len(values), (max(values) - min(values)) / 2) if values else None


def markdown(task: Task, done: list[dict[str, Any]], missing: dict[str, str]) -> str:
    """The comparison as a table: means over the seeds, and after +- half the range between the seeds."""
    k = task.k
    columns = ["rmse", "mae", f"hr@{k}", f"ndcg@{k}", f"recall@{k}", "coverage", "overlap", "novelty"]
    cold = ["cold_rmse", "cold_auc", f"cold_ndcg@{k}"]
    columns += [name for name in cold if any(row[name] != "" for row in done)] + ["seconds"]
    lines = [
        f"{task.data.name}: {task.split.protocol}; relevant: test ratings of {task.relevant:g} stars or more; "
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


def draw(done: list[dict[str, Any]], k: int, target: Path, title: str) -> None:
    """Bars of RMSE and NDCG, with 95 % intervals over test rows and users for the first seed."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

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
    figure.suptitle(title)
    with write_aside(target) as aside:
        figure.savefig(aside, format="png", dpi=120)


if __name__ == "__main__":
    cli.run(main)
