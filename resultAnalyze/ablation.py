#!/usr/bin/env python3
"""Did BERT help? Train a model without one kind of movie feature, and compare on warm and cold movies.

    python resultAnalyze/ablation.py --data dataset/ml-1m --split cold-movies
    python resultAnalyze/ablation.py --preset content

The blocks of the features file (utils/BERT.py --metadata) are taken in groups: title, genres, year, people (director,
writer, cast), the rest, and the popularity predicted from all of them. The variants, each trained with every seed and
the preset's settings (and --id-dropout, for presets that have it), are: all groups; all without one group; all with one
group shuffled among the movies, a control that must not help; and genres and year alone, with and without the title.
--groups selects groups. (`ncf` also knows a movie's age, through its clock.) Presets with embeddings have a variant
without them, and one with embeddings alone. A content model and two baselines without deep learning are measured as
well. Cold movies are tested without any known rating, rare ones have 1 to 5 training ratings, warm ones more. Metrics
on each of these groups of movies:

    RMSE   of the test ratings, if the model predicts ratings
    AUC    how often the relevant one of two test movies of a user is scored above the other
    NDCG   of ranking the group's unseen movies for each user
    top-N share, top-N HR   of recommendations from the whole catalogue, if the model ranks: the share of them that is
           in the group, and the share of users with relevant movies of the group who get one of these recommended

A difference between two variants has a 95 % interval over the training runs and over what is tested (intervals.py):
movies for RMSE, as the errors of a movie's ratings are correlated, and users for AUC and NDCG, which hold for these
movies only; with fewer than 20 of them there is no interval. An effect is only claimed with three or more seeds and if,
by Benjamini and Hochberg's procedure over all differences of the table, at most one in twenty claims is expected to be
wrong.

Writes ablation.csv (one row per variant, seed and group), effects.csv (one row per difference), ablation.md and
ablation.png into --output. Finished training runs are kept there, so an interrupted ablation resumes where it stopped.
"""

import dataclasses
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import numpy as np
import pandas as pd
import tyro
from annotated_types import Interval

from Models.configs import PRESETS, DataConfig, RankingConfig, TrainConfig
from Models.Dataset import FittedModel
from Models.evaluation.rankings import RankingEvaluator
from Models.evaluation.ratings import RatingEvaluator
from Models.features import FeatureConfig
from Models.inputs import POPULARITY, YEAR, NonNegInt, PositiveInt
from resultAnalyze.baselines import BASELINES
from resultAnalyze.effects import SHARE, Contrast, Effect, Results, all_effects, draw, effect_table
from resultAnalyze.experiment import check_protocol, in_processes, protocol_of, scores_of_test_rows, trained
from resultAnalyze.intervals import MIN_UNITS, UnitMetric, mean_over_users, rated_units, squared_by_unit
from resultAnalyze.markdown import markdown_table, mean_and_range
from utils import cli
from utils.cli import display_path
from utils.config import Device, OptionalFolder, RelevanceThreshold, parse
from utils.files import RUNS, UserError, write_table, write_text
from utils.metrics import auc_by_user, metrics_at

# Groups of blocks; the blocks of a features file that are in none of them form the rest.
GROUPS = {
    "title": ("title",),
    "genres": ("genres",),
    "year": (YEAR,),
    "people": ("director", "writer", "cast"),
    "popularity": (POPULARITY,),
}
REST = "the rest"
BASE = ("genres", YEAR)
# Settings of the variant without learned embeddings of movies and, where the model has them, of users.
WITHOUT_IDS = {
    "ncf": {"towers": ("features", "demographics", "clock")},
    **{preset: {"ids": False} for preset in ("ncf-ranking", "transformer", "gru")},
}
# Settings with which presets are trained here, so that they can rank movies without ratings.
SETTINGS = {"ncf-ranking": {"id_dropout": 0.5}, "transformer": {"id_dropout": 0.3}, "gru": {"id_dropout": 0.3}}
CONTENT = "content"
REFERENCES = ("user + movie bias", "genre kNN")
RARE = 5  # the most training ratings of a rare movie


@dataclass(frozen=True)
class Settings:
    data: DataConfig = field(default_factory=lambda: DataConfig(split="cold-movies", ratios=(0.75, 0.1, 0.15)))
    preset: Literal["ncf", "ncf-ranking", "content", "transformer", "gru"] = "ncf"
    """the preset of train.py to take inputs from"""
    groups: tuple[str, ...] = ()
    """groups of blocks to leave out and to shuffle (default: all)"""
    seeds: tuple[NonNegInt, ...] = (0, 1, 2)
    """seeds of the training runs"""
    jobs: PositiveInt = 1
    """how many models are trained in parallel; they share the cores"""
    relevance_threshold: RelevanceThreshold = None
    k: PositiveInt = 10
    """length N of the evaluated top-N lists"""
    epochs: Annotated[
        int | None, Interval(ge=1, lt=2**31), tyro.conf.arg(metavar="INT", help_behavior_hint="(optional)")
    ] = None
    """maximum epochs of a training (default: the preset's)"""
    chunk_users: PositiveInt = 256
    """users scored at a time; bounds memory"""
    device: Device = "auto"
    """where models train"""
    output: OptionalFolder = None
    """folder (default: runs/ablation-<data>-<split>-<preset>)"""


Variants = dict[str, tuple[FeatureConfig, dict[str, Any]]]


def main() -> None:
    settings = parse(Settings, __doc__)
    if not settings.seeds:
        raise UserError("--seeds: give at least one seed.")
    data, split = settings.data.load()
    threshold = data.scale.threshold(settings.relevance_threshold)
    if data.scale.is_constant:
        raise UserError(f"An ablation compares ratings, and all of {data.name} are equal: take compare_baselines.py.")
    evaluator = RankingEvaluator(data, split, threshold, settings.k, settings.chunk_users)
    output = settings.output or RUNS / f"ablation-{data.name}-{settings.data.split}-{settings.preset}"
    protocol = protocol_of(evaluator, settings.data)
    check_protocol(output, protocol | {"preset": settings.preset, "epochs": settings.epochs})

    groups = movie_groups(evaluator)
    if not groups:
        raise UserError(
            "Fewer than two users have both relevant and other test ratings: change --split or --relevance-threshold."
        )
    results: Results = {}
    available = [block.name for block in data.features.blocks()] + [YEAR, POPULARITY]
    variants = variants_of(settings.preset, available, settings.groups)
    if settings.preset != CONTENT:
        variants[CONTENT] = (FeatureConfig(), {})
    trainings = [(name, settings.seeds[0]) for name in REFERENCES]
    trainings += [(name, seed) for seed in settings.seeds for name in variants]
    calls = [(evaluator, settings, output, name, seed, variants, groups) for name, seed in trainings]
    measured = dict(in_processes(measure_variant, calls, settings.jobs))
    for name, seed in trainings:
        results |= {(name, seed, group): metrics for group, metrics in measured[name, seed].items()}
    effects = all_effects(results, contrasts_of(variants))

    write_table(output / "ablation.csv", result_table(results))
    write_table(output / "effects.csv", effect_table(effects))
    text = markdown(evaluator, groups, results, effects)
    write_text(output / "ablation.md", text)
    draw(effects, output / "ablation.png", f"{data.name}, {settings.data.split} split, {settings.preset}")
    print(f"\n{text}\nWrote ablation.csv, effects.csv, ablation.md and ablation.png into {display_path(output)}.")


def variants_of(preset: str, available: Sequence[str], wanted: Sequence[str] = ()) -> Variants:
    """The variants of a preset: a name, and the features and model settings.

    Args:
        available: the blocks of the features
        wanted: the groups to leave out and to shuffle; all if none is given

    Raises:
        UserError: there is no such group.
    """
    groups = {name: [one for one in blocks if one in available] for name, blocks in GROUPS.items()}
    groups[REST] = [one for one in available if not any(one in blocks for blocks in GROUPS.values())]
    groups = {name: blocks for name, blocks in groups.items() if blocks}
    if unknown := [name for name in wanted if name not in groups]:
        raise UserError(f"--groups: the features have no group {unknown[0]!r}: choose from {', '.join(groups)}.")
    groups = {name: blocks for name, blocks in groups.items() if name in wanted or not wanted}
    settings = SETTINGS.get(preset, {})
    found = {"all": (FeatureConfig(blocks=tuple(available)), settings)}
    for name, blocks in groups.items():
        without = tuple(one for one in available if one not in blocks)
        found[f"without {name}"] = (FeatureConfig(blocks=without), settings)
        if name != "popularity":  # it is predicted from the others
            found[f"{name} shuffled"] = (FeatureConfig(blocks=tuple(available), shuffled=tuple(blocks)), settings)
    if "title" in groups:
        base = tuple(one for one in available if one in (*BASE, POPULARITY))
        found["genres and year"] = (FeatureConfig(blocks=base), settings)
        found["title, genres and year"] = (FeatureConfig(blocks=("title", *base)), settings)
    if preset in WITHOUT_IDS:
        found["features only"] = (FeatureConfig(blocks=tuple(available)), settings | WITHOUT_IDS[preset])
        found["ids only"] = (FeatureConfig(blocks=()), {})  # without id dropout: no features could replace the ids
    return found


def contrasts_of(variants: Iterable[str]) -> list[Contrast]:
    """What changes between two variants: its name, the variant with it and the one without."""
    found = []
    for name in (*GROUPS, REST):
        found.append((name, "all", f"without {name}"))
        found.append((f"{name}, shuffled (control)", f"{name} shuffled", f"without {name}"))
    found += [
        ("title, with genres and year only", "title, genres and year", "genres and year"),
        ("learned embeddings", "all", "features only"),
        ("all movie features", "all", "ids only"),
        ("this preset instead of content", "all", CONTENT),
    ]
    return [(what, *pair) for what, *pair in found if all(one in variants for one in pair)]


def fit(
    evaluator: RankingEvaluator, settings: Settings, output: Path, name: str, seed: int, variants: Variants
) -> FittedModel:
    if name in REFERENCES:
        split, is_ranking = evaluator.split, PRESETS[settings.preset].ranking
        known = split.known if is_ranking else split.train  # as the preset is given
        return BASELINES[name].fit(evaluator.data.select(known), seed)
    config = config_of(settings, variants, name, seed)
    return trained(output / "runs" / f"{name}-{seed}", config, evaluator, cli.resolve_device(settings.device))


def config_of(settings: Settings, variants: Variants, variant: str, seed: int) -> TrainConfig:
    """The preset's configuration with what a variant changes."""
    features, model = variants[variant]
    config = PRESETS[CONTENT if variant == CONTENT else settings.preset]
    return dataclasses.replace(
        config,
        data=settings.data.located(),
        features=features,
        model=dataclasses.replace(config.model, **model),
        optim=dataclasses.replace(config.optim, epochs=settings.epochs or config.optim.epochs),
        ranking=config.ranking and RankingConfig(settings.relevance_threshold),
        run=dataclasses.replace(config.run, seed=seed),
    )


# --- measuring -----------------------------------------------------------------------------------


def movie_groups(evaluator: RankingEvaluator) -> dict[str, np.ndarray]:
    """Which movies are cold, rare and warm, bool [n_movies] each; a group where nothing can be measured is left out."""
    data, test = evaluator.data, evaluator.split.test
    count = evaluator.popularity(evaluator.split.train).numpy()
    groups = {"cold": evaluator.new_movies(), "rare": (count > 0) & (count <= RARE), "warm": count > RARE}
    user, movie, relevant = data.user[test], data.movie[test], data.rating[test] >= evaluator.relevance_threshold

    def has_pairs(movies: np.ndarray) -> bool:
        """Whether at least two users have both relevant and other test ratings of these movies."""
        inside = movies[movie]
        return len(auc_by_user(user[inside], np.zeros(inside.sum()), relevant[inside])) > 1

    return {name: movies for name, movies in groups.items() if has_pairs(movies)}


def measure_variant(
    evaluator: RankingEvaluator,
    settings: Settings,
    output: Path,
    name: str,
    seed: int,
    variants: Variants,
    groups: dict[str, np.ndarray],
) -> tuple[tuple[str, int], dict[str, dict[str, UnitMetric]]]:
    """The name and seed of a variant, and its metrics over each group of movies."""
    print(f"{name}, seed {seed} ...", flush=True)
    fitted = fit(evaluator, settings, output, name, seed, variants)
    return (name, seed), {group: measure(evaluator, fitted, movies) for group, movies in groups.items()}


def measure(evaluator: RankingEvaluator, fitted: FittedModel, movies: np.ndarray) -> dict[str, UnitMetric]:
    """The metrics of this file's docstring over these movies, bool [n_movies], by movie or by user."""
    data, test, k = evaluator.data, evaluator.split.test, evaluator.k
    predictions = RatingEvaluator(data, evaluator.split).predict(fitted, test) if fitted.predict else None
    inside = movies[data.movie[test]]
    rows, scores = test[inside], scores_of_test_rows(fitted, predictions, evaluator)[inside]
    movie, rating = data.movie[rows], data.rating[rows]
    found = {}
    if predictions is not None:
        found["rmse"] = rated_units(squared_by_unit(scores - rating, movie))
    relevant = rating >= evaluator.relevance_threshold
    found["auc"] = mean_over_users(auc_by_user(data.user[rows], scores, relevant))
    ranking = evaluator.rank(fitted.score, evaluator.split.known, rows, among=movies)
    found[f"ndcg@{k}"] = mean_over_users(metrics_at(ranking.ranks, ranking.n_relevant, k)[f"ndcg@{k}"])
    if predictions is None:
        whole = evaluator.rank(fitted.score, evaluator.split.known, rows)
        topn = whole.topn.numpy()
        found[SHARE] = mean_over_users((movies[topn] & (topn >= 0)).mean(1))
        found["top-N hr"] = mean_over_users(metrics_at(whole.ranks, whole.n_relevant, k)[f"hr@{k}"])
    return found


# --- output --------------------------------------------------------------------------------------


def result_table(results: Results) -> pd.DataFrame:
    """One row per variant, seed and group; empty where that variant has no such metric."""
    return pd.DataFrame(
        {"variant": variant, "seed": seed, "group": group} | {name: round(m.value(), 5) for name, m in found.items()}
        for (variant, seed, group), found in results.items()
    )


def markdown(
    evaluator: RankingEvaluator, groups: dict[str, np.ndarray], results: Results, effects: list[Effect]
) -> str:
    """A table of the variants, with means over the seeds +- half their range, and the verdicts."""
    data, tested = evaluator.data, evaluator.data.movie[evaluator.split.test]
    sizes = ", ".join(f"{movies[tested].sum():,} of {group} movies" for group, movies in groups.items())
    table = result_table(results)
    metrics = [name for name in table if name not in ("variant", "seed", "group")]
    rows = []
    for variant, mine in table.groupby("variant", sort=False):
        row = {"variant": variant, "seeds": mine["seed"].nunique()}
        for group, of_group in mine.groupby("group", sort=False):
            row |= {f"{group} {metric}": mean_and_range(of_group[metric]) for metric in metrics}
        rows.append(row)
    columns = ["variant", "seeds", *(f"{group} {metric}" for group in groups for metric in metrics)]
    shown = pd.DataFrame(rows)[columns].replace("", np.nan).dropna(axis=1, how="all")
    text = (
        f"{data.name}: {evaluator.split.protocol}; relevant: {evaluator.relevance_threshold:g} or higher; cold: tested "
        f"movies without a known rating, rare: 1 to {RARE} training ratings; NDCG ranks the group's unseen movies, "
        f"ties against the model; +-: half the range between seeds. Test ratings: {sizes}.\n\n"
        f"{markdown_table(shown)}\n"
        f"{len(effects)} differences over at least {MIN_UNITS} movies or users, with 95 % intervals over seeds and "
        "tested units; of those claimed, at most one in twenty is expected to be wrong (Benjamini and Hochberg):\n\n"
    )
    return text + "".join(f"- {effect.in_words()}\n" for effect in effects)


if __name__ == "__main__":
    cli.run(main)
