#!/usr/bin/env python3
"""A report of a training: one HTML file with what was trained, how good it is, for whom, and how to repeat it.

    python resultAnalyze/report.py
    python resultAnalyze/report.py --run runs/RUN --output report.html

It uses only the run's own files; nothing is trained or tested again. Intervals are 95 % over the tested users: they
show how much a figure depends on who was tested, not on the seed. The lists of ten users are shown with movies that
these people rated: mind where you publish them.
"""

import html
import io
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import numpy as np
import pandas as pd
import torch

from Models.inference.recommend import TopNRecommender
from resultAnalyze import calibration, loss_ananlyze
from resultAnalyze.intervals import estimate, mean_over_users
from resultAnalyze.run_files import (
    Run,
    counts_outside_test,
    equal_parts,
    relevant_rows,
    results_table,
    rmse_by_user,
    top_lists,
    user_metrics,
)
from utils import cli, runs
from utils.cli import display_path
from utils.config import OptionalFileName, OptionalFolder, as_typed, parse
from utils.files import ROOT, write_text

TEMPLATE = ROOT / "resultAnalyze" / "report.html"
GROUPS = 5  # of users by activity, of movies by popularity
N_USERS, N_LIKED = 10, 5  # users whose lists are shown, and liked movies shown for each


@dataclass(frozen=True)
class Settings:
    run: OptionalFolder = None
    """folder of a finished training with a test (default: the newest in runs/)"""
    output: OptionalFileName = None
    """where the report goes (default: report.html in the run's folder)"""


def main() -> None:
    settings = parse(Settings, __doc__)
    folder = runs.finished_run(settings.run, tested=True)
    output = settings.output or folder / "report.html"
    write_report(folder, output)
    print(f"Wrote {display_path(output)}: open it in a browser.")


def write_report(folder: Path, output: Path) -> None:
    run = Run.read(folder)
    title = f"{run.test['preset']} on {run.test['dataset']}, {run.test['split']} split"
    parts = [f"<h1>{text(title)}</h1>", f'<p class="note">{text(display_path(folder))}</p>', *sections(run)]
    page = TEMPLATE.read_text(encoding="utf-8").replace("TITLE", text(title))
    page = page.replace("BODY", "\n".join(parts))
    write_text(output, page)


def sections(run: Run) -> list[str]:
    found = ["<h2>How good</h2>", how_good(run), "<h2>What was trained</h2>", what_was_trained(run)]
    found += ["<h2>By epoch</h2>", figure(loss_ananlyze.draw(run.epochs, run.test, False)), by_epoch(run)]
    found += ["<h2>For whom</h2>", *(ranking_groups(run) if run.ranks else rating_groups(run))]
    if "parts" in run.test:
        found += ["<h2>Cold and warm</h2>", cold_and_warm(run)]
    found += ["<h2>Lists of ten users</h2>", *lists(run), "<h2>To repeat it</h2>", commands(run)]
    return found


# --- the parts of the page -----------------------------------------------------------------------


def how_good(run: Run) -> str:
    """The test metrics with intervals, compared with predictions that need no model."""
    test = run.test
    if run.ranks:
        by_user = user_metrics(run)
        metrics = {name: mean_over_users(by_user[name].to_numpy()) for name in ("hr@10", "ndcg@10", "recall@10")}
        other, words = test["most_popular"], "most popular movies"
    else:
        metrics, other, words = {"rmse": rmse_by_user(run)}, test["always_mean"], "always the mean rating"
    rows = []
    for name, metric in metrics.items():
        _, low, high, _ = estimate([metric])
        row = {"": name.upper(), "this run": f"{test[name]:.4f}", "95 % interval": f"{low:.4f} to {high:.4f}"}
        rows.append(row | {words: f"{other[name]:.4f}"})
    if run.ranks:
        shown = {"coverage": "of the catalogue in somebody's list", "overlap": "of two users' lists in common"}
        rows += [{"": f"share {what}", "this run": f"{test[name]:.3f}"} for name, what in shown.items()]
    else:
        rows.append({"": "MAE", "this run": f"{test['mae']:.4f}", words: f"{other['mae']:.4f}"})
    return table(rows) + f'<p class="note">{text(test["protocol"][0].upper() + test["protocol"][1:])}.</p>'


def what_was_trained(run: Run) -> str:
    test, record = run.test, run.config
    features, versions = record["features"], record["versions"]
    blocks = run.saved.model.stats.blocks + run.saved.model.stats.names
    rows = {
        "preset": test["preset"] + "".join(f", {name} {value}" for name, value in test["changes"].items()),
        "ratings": f"{test['train_rows']:,} to train, {test['val_rows']:,} to validate, {test['test_rows']:,} to test",
        "movie features": ", ".join(block.name for block in blocks) or "nothing",
        "titles": f"encoded by {features['encoder']}, {features['pooling']} pooling",
        "epochs": f"{test['epochs']}, best {test['best_epoch']}, {test['wall_seconds']:,.0f} seconds",
        "parameters": f"{sum(p.numel() for p in run.saved.model.parameters()):,}",
        "seed": test["seed"],
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
    }
    return table([{"": name, " ": value} for name, value in rows.items()])


def by_epoch(run: Run) -> str:
    shown = run.epochs.assign(seconds=run.epochs["seconds"].round(1)).round(4).astype(str)
    return f"<details><summary>All figures</summary>{table(shown.to_dict('records'))}</details>"


def rating_groups(run: Run) -> list[str]:
    """The calibration of predictions, and the error by activity and popularity."""
    predictions = results_table(run.folder / "test_predictions.csv")
    groups = calibration.calibration(calibration.with_counts(predictions, run.saved), 10)
    return [f"<p>{text(calibration.in_words(predictions))}</p>", figure(calibration.draw(groups, run.test))]


def ranking_groups(run: Run) -> list[str]:
    """NDCG by the users' activity, and how many relevant movies are found by the movies' popularity."""
    of_users, of_movies = counts_outside_test(run.saved)
    by_user, relevant = user_metrics(run), relevant_rows(run)
    users = grouped(of_users[by_user.index], by_user["ndcg@10"].to_numpy(), "users", "NDCG@10")
    is_found = relevant["rank"].notna().to_numpy(float)
    movies = grouped(of_movies[relevant["movie"]], is_found, "relevant test ratings", "found in the ten")
    return [
        "<h3>By the number of the user's known ratings</h3>",
        table(users),
        "<h3>By the number of the movie's known ratings</h3>",
        table(movies),
    ]


def cold_and_warm(run: Run) -> str:
    rows = []
    for name, part in run.test["parts"].items():
        rows.append({"": in_words(name)} | {in_words(key): shown(value) for key, value in part.items()})
    return table(rows)


def lists(run: Run) -> list[str]:
    """What some users like and are recommended; of a ranking model the tested lists, with relevant movies marked."""
    users = np.unique(run.tested()["user"])
    if run.ranks:
        users = np.intersect1d(users, top_lists(run)["user"])
    chosen = users[np.linspace(0, len(users) - 1, min(N_USERS, len(users))).round().astype(int)].tolist()
    words = "As tested; a check marks a relevant movie." if run.ranks else "From their training ratings."
    found = [f'<p class="note">{words}</p>']
    training = run.saved.ratings.training()
    for user, rows in zip(
        chosen, tested_lists(run, chosen) if run.ranks else predicted_lists(run, chosen), strict=True
    ):
        own = training.pad(torch.tensor([user]))
        best = own.rating[0].argsort(descending=True, stable=True)[:N_LIKED]
        liked = [run.saved.ids.titles[int(own.movie[0, k])] for k in best.tolist() if own.mask[0, k]]
        likes = text("; ".join(liked)) or "nothing yet"
        found += [f"<h3>User {text(run.saved.ids.user_ids[user])}</h3><p>Likes {likes}.</p>", table(rows)]
    return found


def tested_lists(run: Run, users: list[int]) -> Iterator[list[dict[str, Any]]]:
    """The rows of test_topn.csv for each of these users."""
    relevant = set(relevant_rows(run)[["user", "movie"]].itertuples(index=False, name=None))
    found = top_lists(run)
    for user in users:
        mine = found[found["user"] == user].sort_values("rank")
        yield [
            list_row(run, rank, movie, {"score": score}, (user, movie) in relevant)
            for movie, rank, score in mine[["movie", "rank", "score"]].itertuples(index=False, name=None)
        ]


def predicted_lists(run: Run, users: list[int]) -> Iterator[list[dict[str, Any]]]:
    """The movies with the highest predicted ratings for each of these users."""
    training, index = run.saved.ratings.training(), {movie: k for k, movie in enumerate(run.saved.ids.movie_ids)}
    for one in TopNRecommender(run.saved.model, run.saved.ids).for_users(users, training, training):
        yield [list_row(run, rank, index[movie.id], movie.values) for rank, movie in enumerate(one.movies, start=1)]


def list_row(run: Run, rank: int, movie: int, values: dict[str, float], is_relevant: bool = False) -> dict[str, Any]:
    title, genres = run.saved.ids.titles[movie], run.saved.ids.genres[movie].replace("|", ", ")
    shown_values = {name: f"{value:.2f}" for name, value in values.items()}
    return {"": rank, "title": title + " \u2713" * is_relevant, **shown_values, "genres": genres}


def commands(run: Run) -> str:
    """The commands that reproduce this run and this report."""
    data, test = run.config["config"]["data"], run.test
    words = ["python", "train.py", "--data", data["folder"], "--features", data["features"], "--preset", test["preset"]]
    words += ["--split", data["split"], "--ratios", *data["ratios"], "--seed", test["seed"]]
    for name in ("train_file", "test_file", "encoding"):
        words += as_typed(name, data[name]) if data[name] else []
    words += ["--scale", *data["scale"]] if data["scale"] else []
    earlier = run.config["config"]["run"]["continue_from"]
    words += ["--continue-from", earlier] if earlier else []
    if run.ranks:
        words += ["--relevance-threshold", test["relevance_threshold"]]
    for name, value in test["changes"].items():
        words += as_typed(name, value)
    lines = [shlex.join(map(str, words)), "python resultAnalyze/report.py --run runs/RUN"]
    return f"<pre>{text(chr(10).join(lines))}</pre>"


# --- figures -------------------------------------------------------------------------------------


def grouped(by: np.ndarray, values: np.ndarray, of_what: str, metric: str) -> list[dict[str, Any]]:
    """Means of values in groups of about equal size, by the number of ratings."""
    group = equal_parts(by, GROUPS)
    rows = []
    for k in np.unique(group):
        mine = group == k
        row = {"known ratings": f"{by[mine].min():,} to {by[mine].max():,}", of_what: f"{mine.sum():,}"}
        rows.append(row | {metric: f"{values[mine].mean():.4f}"})
    return rows


# --- HTML ----------------------------------------------------------------------------------------


def in_words(name: str) -> str:
    """A name from test_metrics.json in words."""
    return name.replace("_", " ").replace("hr@", "HR@").replace("ndcg@", "NDCG@")


def text(value: Any) -> str:
    return html.escape(str(value))


def shown(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else f"{value:,}"


def table(rows: list[dict[str, Any]]) -> str:
    made = pd.DataFrame(rows).fillna("").astype(str).to_html(index=False, border=0, escape=True)
    return f'<div class="wide">{made}</div>'


def figure(drawn: Any) -> str:
    """A matplotlib figure as part of the page."""
    import matplotlib.pyplot as plt

    made = io.StringIO()
    drawn.savefig(made, format="svg")
    plt.close(drawn)
    return f"<figure>{made.getvalue()[made.getvalue().index('<svg') :]}</figure>"


if __name__ == "__main__":
    cli.run(main)
