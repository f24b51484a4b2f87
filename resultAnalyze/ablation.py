#!/usr/bin/env python3
"""Did BERT help? Train the model with and without ids, titles and genres, and compare on warm and cold movies.

    python resultAnalyze/ablation.py --data dataset/ml-1m --split cold-movies
    python resultAnalyze/ablation.py --preset transformer

Six arms, each with every seed, by train.py with the preset's settings: ids; ids + genres; ids + titles; all; features
only (no ids of movies); and the control that must not help, titles shuffled among the movies. Sequential models have a
seventh, a share of the ids dropped in each step. Two baselines that use no deep learning stand beside them. Cold movies
are tested without any known rating, rare ones have 1 to 5 training ratings, warm ones more. On each of the three parts:

    RMSE   of the test ratings, where the model predicts stars
    AUC    how often, of two test movies of one user, the liked one is predicted above the other
    NDCG   of ranking, for each user, the part's unseen movies
    list share, list HR   of lists over the whole catalogue, where the model ranks: how much of them is the part's, and
           for how many users with liked movies of the part one of these is in the list

A difference between two arms has a 95 % interval by paired bootstrap: over movies for RMSE, as ratings of one movie go
right or wrong together, and over users for AUC and NDCG, which speak of these very movies. All are means over seeds;
an effect is only claimed where the interval excludes 0 and every seed agrees.

Writes ablation.csv (a row an arm, seed and part), ablation.md and ablation.png into --output. Finished trainings are
kept there, so an interrupted ablation goes on where it stopped. 18 trainings on MovieLens 1M take half an hour or more.
"""

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import numpy as np

from Models.baselines import BASELINES, Fitted
from Models.comparison import Task, keep_protocol, train_run
from Models.dataLoader import load_data, split_rows
from Models.evaluate import auc_by_user
from Models.ranking import metrics_at
from Models.splits import Ratios, SplitName
from resultAnalyze.intervals import Measured, by_user, difference
from utils import cli
from utils.cli import flag, positive, shown
from utils.files import RUNS, UserError, write_aside
from utils.runs import write_table

# An arm is a line here: its name and what it asks of train.py.
ARMS: dict[str, list[str]] = {
    "ids": ["--titles", "none", "--no-genres"],
    "ids + genres": ["--titles", "none"],
    "ids + titles": ["--no-genres"],
    "all": [],
    "features only": ["--no-ids"],
    "titles shuffled": ["--titles", "shuffled"],
}
DROPPED = "all, ids dropped"
OF_SEQUENTIAL = {DROPPED: ["--id-dropout", "0.3"]}
REFERENCES = ("user + movie bias", "genre kNN")
# What changes between two arms: its name, the arm with it and the arm without.
CONTRASTS: list[tuple[str, str, str]] = [
    ("titles", "all", "ids + genres"),
    ("titles, no genres beside them", "ids + titles", "ids"),
    ("genres", "all", "ids + titles"),
    ("genres, no titles beside them", "ids + genres", "ids"),
    ("ids", "all", "features only"),
    ("shuffled titles (control)", "titles shuffled", "ids + genres"),
    ("ids dropped in training", DROPPED, "all"),
    ("ids dropped, in place of genre kNN,", DROPPED, "genre kNN"),
]
SHARE = "list share"
RARE = 5  # training ratings up to which a movie is rare


@dataclass(frozen=True)
class Settings:
    data: Path = cli.data_flag()
    features: Path = cli.features_flag()
    preset: Literal["ncf", "transformer", "gru"] = flag("ncf", "the preset of train.py to take inputs from")
    split: SplitName = flag("cold-movies", "how the ratings are parted")
    ratios: Ratios = flag((0.75, 0.1, 0.15), "shares of the parts", metavar=("TRAIN", "VAL", "TEST"))
    seeds: list[int] = flag((0, 1, 2), "seeds of the trainings", metavar="N", nargs="+", type=int)
    relevant: float = flag(4.0, "stars from which a test rating is liked")
    k: int = flag(10, "places of a list that count", type=positive)
    epochs: int | None = flag(None, "the most epochs of a training (default: the preset's)", type=positive)
    chunk_users: int = flag(256, "users scored together: bounds memory", type=positive)
    output: Path | None = flag(None, "folder (default: runs/ablation-<data>-<split>-<preset>)", metavar="DIR")


@dataclass(frozen=True)
class Effect:
    """What an input changes, and the 95 % interval of that."""

    what: str
    part: str
    metric: str
    change: float
    low: float
    high: float
    agree: int  # seeds whose own difference has the sign of `change`
    seeds: int

    def verdict(self) -> str:
        """The outcome in words: an effect needs an interval without 0, and every seed on its side.

        The interval covers the choice of movies or users, not the chance in a training: that is what the seeds show.
        """
        better = (self.change < 0) == (self.metric == "rmse")
        shown = (self.low > 0 or self.high < 0) and self.agree == self.seeds
        words = ("better" if better else "worse") if shown else "no effect is shown"
        interval = f"{self.change:+.4f} [{self.low:+.4f}, {self.high:+.4f}], in {self.agree} of {self.seeds} seeds"
        what = self.what[0].upper() + self.what[1:]
        return f"{what} change {self.part}-movie {self.metric.upper()} by {interval}: {words}."


Results = dict[tuple[str, int, str], dict[str, Measured]]  # (arm, seed, part) -> metric -> what was measured


def main() -> None:
    settings = cli.parse(Settings, __doc__, None)
    data = load_data(settings.data, settings.features)
    split = split_rows(data, settings.split, settings.ratios)
    task = Task.of(data, split, split.train, settings.relevant, settings.k, settings.chunk_users)
    output = settings.output or RUNS / f"ablation-{data.name}-{settings.split}-{settings.preset}"
    protocol = {"data": data.name, "ratings_sha256": data.fingerprint(), "split": split.protocol}
    protocol["features"] = data.features.info.features_sha256
    kept = {name: getattr(settings, name) for name in ("relevant", "k", "preset", "epochs")}
    keep_protocol(output, protocol | kept)

    parts = movie_parts(task)
    if not parts:
        raise UserError(
            "Fewer than two users have both liked and other test ratings to compare: change --split or --relevant."
        )
    results: Results = {}
    arms = ARMS if settings.preset == "ncf" else ARMS | OF_SEQUENTIAL
    trainings = [(arm, seed) for seed in settings.seeds for arm in arms]
    for arm, seed in [(arm, settings.seeds[0]) for arm in REFERENCES] + trainings:
        print(f"{arm}, seed {seed} ...", flush=True)
        fitted = fit(task, settings, output, arm, seed)
        for part, movies in parts.items():
            results[arm, seed, part] = measure(task, fitted, movies)
    effects = all_effects(results)

    write_table(output / "ablation.csv", table_rows(results))
    text = markdown(task, parts, results, effects)
    with write_aside(output / "ablation.md") as aside:
        aside.write_text(text, encoding="utf-8")
    draw(effects, output / "ablation.png", f"{data.name}, {settings.split} split, {settings.preset}")
    print(f"\n{text}\nWrote ablation.csv, ablation.md and ablation.png into {shown(output)}.")


def fit(task: Task, settings: Settings, output: Path, arm: str, seed: int) -> Fitted:
    if arm in REFERENCES:
        return BASELINES[arm][0](task.rows, seed)
    flags = ["--data", settings.data, "--features", settings.features, "--split", settings.split]
    flags += [
        "--ratios",
        *settings.ratios,
        "--relevant",
        settings.relevant,
        "--seed",
        seed,
        "--preset",
        settings.preset,
    ]
    flags += ["--epochs", settings.epochs] if settings.epochs else []
    return train_run(output / "runs" / f"{arm}-{seed}", [*flags, *(ARMS | OF_SEQUENTIAL)[arm]], task)


# --- measuring -----------------------------------------------------------------------------------


def movie_parts(task: Task) -> dict[str, np.ndarray]:
    """Which movies are cold, rare and warm, bool [n_movies] each; a part where nothing can be measured falls away."""
    count = np.bincount(task.rows.movie, minlength=task.rows.n_movies)
    parts = {"cold": task.cold(), "rare": (count > 0) & (count <= RARE), "warm": count > RARE}
    test = task.split.test
    user, movie, liked = task.data.user[test], task.data.movie[test], task.data.rating[test] >= task.relevant

    def has_pairs(movies: np.ndarray) -> bool:
        """Of two users at least, as an interval needs."""
        inside = movies[movie]
        return len(auc_by_user(user[inside], np.zeros(inside.sum()), liked[inside])) > 1

    return {name: movies for name, movies in parts.items() if has_pairs(movies)}


def measure(task: Task, fitted: Fitted, movies: np.ndarray) -> dict[str, Measured]:
    """The metrics of this file's head over these movies, bool [n_movies], by movie or by user."""
    test = task.split.test
    inside = movies[task.data.movie[test]]
    rows, scores = test[inside], task.scores(fitted)[inside]
    user, movie, rating = task.data.user[rows], task.data.movie[rows], task.data.rating[rows]
    found = {}
    if rating_model := fitted.stars is not None:
        squared = np.bincount(movie, (scores - rating) ** 2, len(movies))[movies]
        found["rmse"] = Measured(squared, np.bincount(movie, minlength=len(movies))[movies], root=True)
    found["auc"] = by_user(auc_by_user(user, scores, rating >= task.relevant))
    ranking = task.rank(fitted.score, movies, among=movies)
    found[f"ndcg@{task.k}"] = by_user(metrics_at(ranking.ranks, ranking.n_relevant, task.k)[f"ndcg@{task.k}"])
    if not rating_model:
        whole = task.rank(fitted.score, movies)
        listed = whole.lists.numpy()
        found[SHARE] = by_user((movies[listed] & (listed >= 0)).mean(1))
        found["list hr"] = by_user(metrics_at(whole.ranks, whole.n_relevant, task.k)[f"hr@{task.k}"])
    return found


def over_seeds(results: Results, arm: str, part: str, metric: str) -> Measured:
    """The mean over an arm's seeds, unit by unit: all seeds are measured on the same units."""
    found = [one[metric] for (name, _, where), one in results.items() if (name, where) == (arm, part)]
    return Measured(np.mean([one.total for one in found], axis=0), found[0].weight, found[0].root)


def all_effects(results: Results) -> list[Effect]:
    """Every contrast of trained arms, on every part by every metric that both have and that can be good or bad."""
    return [
        effect(results, what, arms, part, metric)
        for what, *arms in CONTRASTS
        for part, metric in shared_places(results, arms)
        if metric != SHARE
    ]


def shared_places(results: Results, arms: Iterable[str]) -> list[tuple[str, str]]:
    """The parts and metrics by which all these arms were measured."""
    of_arm = [dict.fromkeys((p, m) for (a, _, p), found in results.items() if a == arm for m in found) for arm in arms]
    return [place for place in of_arm[0] if all(place in places for places in of_arm)]


def effect(results: Results, what: str, arms: list[str], part: str, metric: str) -> Effect:
    change, low, high = difference(*(over_seeds(results, arm, part, metric) for arm in arms))
    by_arm = [{seed: r[metric].value() for (a, seed, p), r in results.items() if (a, p) == (arm, part)} for arm in arms]
    last = list(by_arm[1].values())[-1]  # baselines have one seed
    agree = sum((value - by_arm[1].get(seed, last)) * change > 0 for seed, value in by_arm[0].items())
    return Effect(what, part, metric, change, low, high, agree, len(by_arm[0]))


# --- what is shown -------------------------------------------------------------------------------


def table_rows(results: Results) -> list[dict[str, Any]]:
    """A row an arm, seed and part; empty where that arm has no such metric."""
    metrics = dict.fromkeys((name for found in results.values() for name in found), "")
    return [
        {"arm": arm, "seed": seed, "part": part, **metrics, **{name: round(m.value(), 5) for name, m in found.items()}}
        for (arm, seed, part), found in results.items()
    ]


def markdown(task: Task, parts: dict[str, np.ndarray], results: Results, effects: list[Effect]) -> str:
    """A table of the arms, means over the seeds and after +- half the range between them, and the verdicts."""
    places = list(dict.fromkeys((part, metric) for (_, _, part), found in results.items() for metric in found))
    tested = task.data.movie[task.split.test]
    sizes = ", ".join(f"{movies[tested].sum():,} of {part} movies" for part, movies in parts.items())
    lines = [
        f"{task.data.name}: {task.split.protocol}; liked: {task.relevant:g} stars or more; cold: tested movies without "
        f"a known rating, rare: 1 to {RARE} training ratings; NDCG ranks the part's unseen movies, ties against the "
        f"model; +-: half the range between seeds. Test ratings: {sizes}.",
        "",
        "| arm | seeds | " + " | ".join(f"{part} {metric}" for part, metric in places) + " |",
        "| --- " * (2 + len(places)) + "|",
    ]
    for arm in dict.fromkeys(name for name, _, _ in results):
        seeds = sorted({seed for name, seed, _ in results if name == arm})
        found = [[results[arm, seed, part].get(metric) for seed in seeds] for part, metric in places]
        cells = [cell([one.value() for one in ones]) if None not in ones else "" for ones in found]
        lines.append(f"| {arm} | {len(seeds)} | {' | '.join(cells)} |")
    lines += [
        "",
        f"{len(effects)} differences with 95 % intervals; by chance alone, one in twenty would miss its truth:",
        "",
    ]
    return "\n".join([*lines, *(f"- {effect.verdict()}" for effect in effects)]) + "\n"


def cell(values: list[float]) -> str:
    spread = f" +- {(max(values) - min(values)) / 2:.4f}" if len(values) > 1 else ""
    return f"{np.mean(values):.4f}{spread}"


def draw(effects: list[Effect], target: Path, title: str) -> None:
    """Differences with their intervals, a panel a metric, a colour a part."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    names, parts, metrics = (
        list(dict.fromkeys(getattr(effect, field) for effect in effects)) for field in ("what", "part", "metric")
    )
    figure, axes = plt.subplots(1, len(metrics), figsize=(14, 5), sharey=True, layout="constrained")
    for effect in effects:
        axis, part = axes[metrics.index(effect.metric)], parts.index(effect.part)
        y = names.index(effect.what) + 0.2 * part
        error = [[effect.change - effect.low], [effect.high - effect.change]]
        label = effect.part if effect.what == names[0] else None
        axis.errorbar(effect.change, y, xerr=error, fmt="o", capsize=3, color=f"C{part}", label=label)
    for axis, metric in zip(axes, metrics, strict=True):
        axis.axvline(0, color="black", linewidth=0.8)
        axis.set_title(f"{metric.upper()}, {'left' if metric == 'rmse' else 'right'} is better")
        axis.grid(axis="x", alpha=0.3)
    axes[0].set_yticks(np.arange(len(names)) + 0.2, names)
    axes[0].invert_yaxis()
    axes[0].legend(title="movies")
    figure.suptitle(f"What each input changes: {title}, 95 % intervals")
    with write_aside(target) as aside:
        figure.savefig(aside, format="png", dpi=120)


if __name__ == "__main__":
    cli.run(main)
