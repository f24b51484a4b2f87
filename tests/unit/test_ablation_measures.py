"""Did BERT help: groups of movies by plain counts, metrics of rankings by plain loops, verdicts and contrasts."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from scipy.stats import ttest_ind

from Models.configs import PRESETS
from Models.Dataset import FittedModel
from Models.evaluation.rankings import RankingEvaluator
from Models.features import FeatureConfig
from Models.ratings_data import split_rows
from resultAnalyze.ablation import (
    GROUPS,
    Settings,
    config_of,
    contrasts_of,
    measure,
    movie_groups,
    result_table,
    variants_of,
)
from resultAnalyze.effects import Effect, all_effects
from resultAnalyze.intervals import Estimate, mean_over_users
from utils.files import UserError


def evaluator_of(data, split: str, ratios: tuple[float, float, float]) -> RankingEvaluator:
    return RankingEvaluator(data, split_rows(data, split, ratios), relevance_threshold=4, k=10, chunk_users=8)


@pytest.fixture(scope="module")
def cold(data) -> RankingEvaluator:
    return evaluator_of(data, "cold-movies", (0.5, 0.2, 0.3))


# --- verdicts ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metric", "seeds", "q", "verdict"),
    [
        ("rmse", 3, 0.04, "better"),
        ("ndcg@10", 3, 0.04, "worse"),
        ("rmse", 3, 0.06, "no effect is shown"),  # its interval excludes 0, but among many some do by chance
        ("rmse", 2, 0.001, "fewer than 3 seeds, no claim"),
    ],
)
def test_verdicts_follow_from_the_rate_of_false_claims_and_seeds(metric, seeds, q, verdict):
    words = Effect("title", "cold", metric, Estimate(-0.02, -0.03, -0.01, 0.01), seeds, q).in_words()
    assert words == f"Title: cold-movie {metric.upper()} -0.0200 [-0.0300, -0.0100], {verdict}."


# --- groups --------------------------------------------------------------------------------------


def test_groups_by_plain_counts(data, cold):
    groups, split = movie_groups(cold), cold.split
    in_training = {movie: (data.movie[split.train] == movie).sum() for movie in range(27)}
    tested = set(data.movie[split.test].tolist())
    known = set(data.movie[np.concatenate([split.train, split.val])].tolist())
    assert set(np.flatnonzero(groups["cold"])) == tested - known and groups["cold"].any()
    assert set(np.flatnonzero(groups["warm"])) == {movie for movie, n in in_training.items() if n > 5}
    assert not any(movies[[25, 26]].any() for movies in groups.values())  # nobody rated these two


def test_a_group_of_fewer_than_two_users_is_left_out(data):
    evaluator = evaluator_of(data, "cold-users", (0.75, 0.1, 0.15))
    split = evaluator.split
    count = np.bincount(data.movie[split.train], minlength=27)
    users = {}
    for group, movies in {"rare": (count > 0) & (count < 6), "warm": count > 5}.items():
        rows = split.test[movies[data.movie[split.test]]]
        verdicts = [set((data.rating[rows[data.user[rows] == user]] >= 4).tolist()) for user in range(30)]
        users[group] = verdicts.count({True, False})
    assert users["rare"] == 1 and users["warm"] > 1  # one user gives no interval
    assert list(movie_groups(evaluator)) == ["warm"]


# --- measuring -----------------------------------------------------------------------------------


def test_rankings_are_measured_without_predictions(data, cold):
    """In the top-N of the whole catalogue: the share of cold movies, and the users for whom it holds a relevant one."""
    split, movies = cold.split, movie_groups(cold)["cold"]
    scores = torch.from_numpy(np.random.default_rng(3).normal(size=(30, 27)))
    found = measure(cold, FittedModel(score=lambda users: scores[users]), movies)
    known, shares, hits = np.concatenate([split.train, split.val]), [], []
    for user in range(30):
        seen = set(data.movie[known][data.user[known] == user].tolist())
        recommended = [m for m in scores[user].argsort(descending=True).tolist() if m not in seen][:10]
        own = split.test[data.user[split.test] == user]
        relevant = {m for m in data.movie[own][data.rating[own] >= 4].tolist() if movies[m]}
        if relevant:
            shares.append(np.mean([movies[m] for m in recommended]))
            hits.append(bool(relevant & set(recommended)))
    assert found["top-N share"].value() == pytest.approx(np.mean(shares))
    assert found["top-N hr"].value() == pytest.approx(np.mean(hits)) and "rmse" not in found


def test_predictions_are_measured_by_movie(data, cold):
    """RMSE equals plain sums; AUC equals that of a ranking by the same numbers, which lie on the scale."""
    movies, test = movie_groups(cold)["warm"], cold.split.test
    table = np.random.default_rng(3).uniform(1, 5, size=(30, 27)).astype(np.float32)
    scores = torch.from_numpy(table)
    fitted = FittedModel(lambda user, movie, time: table[user, movie], lambda users: scores[users])
    found = measure(cold, fitted, movies)
    error = (table[data.user[test], data.movie[test]] - data.rating[test])[movies[data.movie[test]]]
    assert found["rmse"].value() == pytest.approx((error**2).mean() ** 0.5, rel=1e-5)
    assert len(found["rmse"].total) == movies.sum()
    ranked = measure(cold, dataclasses.replace(fitted, predict=None), movies)
    assert found["auc"].value() == ranked["auc"].value() and "top-N hr" not in found
    table = result_table({("predicts", 0, "warm"): found, ("ranks", 0, "warm"): ranked})
    assert table["top-N hr"].isna().tolist() == [True, False] and table["rmse"].isna().tolist() == [False, True]


# --- variants and contrasts ----------------------------------------------------------------------


BLOCKS = ["title", "genres", "director", "cast", "mood", "year", "popularity"]


def test_variants_change_what_they_say_and_nothing_else():
    settings = Settings(preset="gru")
    variants = variants_of("gru", BLOCKS)
    whole = config_of(settings, variants, "all", 5)
    assert whole.optim == PRESETS["gru"].optim and whole.run.seed == 5 and whole.model.id_dropout == 0.3
    for name, (features, model) in variants.items():
        config = config_of(settings, variants, name, 5)
        assert config == dataclasses.replace(
            whole, features=features, model=dataclasses.replace(PRESETS["gru"].model, **model)
        )
        assert (config == whole) == (name == "all")
    shorter = dataclasses.replace(settings, epochs=3, relevance_threshold=2.0)
    assert config_of(shorter, variants, "all", 0).optim.epochs == 3


def test_groups_of_blocks_are_left_out_and_shuffled_one_by_one():
    variants = {name: features for name, (features, _) in variants_of("content", BLOCKS).items()}
    assert variants["all"] == FeatureConfig(blocks=tuple(BLOCKS))
    assert variants["without people"].blocks == ("title", "genres", "mood", "year", "popularity")
    assert variants["people shuffled"] == FeatureConfig(blocks=tuple(BLOCKS), shuffled=("director", "cast"))
    assert variants["without the rest"].blocks == tuple(one for one in BLOCKS if one != "mood")
    assert variants["genres and year"].blocks == ("genres", "year", "popularity")
    assert "popularity shuffled" not in variants and "ids only" not in variants
    assert "ids only" in variants_of("ncf", BLOCKS)
    assert "without people" not in variants_of("ncf", ["title", "genres", "year", "popularity"])


def test_groups_that_are_named_are_the_only_ones():
    assert list(variants_of("content", BLOCKS, ["people"])) == ["all", "without people", "people shuffled"]
    with pytest.raises(UserError, match="no group 'plots': choose from title, genres, year, people, popularity"):
        variants_of("content", BLOCKS, ["plots"])


def test_every_variant_without_a_group_has_its_contrast():
    variants = [*variants_of("gru", BLOCKS), "content"]
    contrasts = contrasts_of(variants)
    assert {without for _, _, without in contrasts} >= {f"without {name}" for name in (*GROUPS, "the rest")}
    assert all({one, other} <= set(variants) for _, one, other in contrasts)
    assert len({what for what, *_ in contrasts}) == len(contrasts)


def test_effects_are_differences_over_seeds():
    """Titles help in two of three seeds, every user equally: Welch's interval; one difference needs no correction."""
    values = {"all": (0.5, 0.6, 0.2), "without title": (0.4, 0.5, 0.3)}
    results = {
        (variant, seed, "cold"): {"auc": mean_over_users(np.full(20, value))}
        for variant, by_seed in values.items()
        for seed, value in enumerate(by_seed)
    }
    (effect,) = all_effects(results, contrasts_of(values))
    assert (effect.what, effect.group, effect.metric) == ("title", "cold", "auc")
    welch = ttest_ind(*values.values(), equal_var=False)
    interval = welch.confidence_interval(0.95)
    assert tuple(effect.change) == pytest.approx((0.1 / 3, interval.low, interval.high, welch.pvalue))
    assert effect.seeds == 3 and effect.q == effect.change.p


def test_claims_are_corrected_for_how_many_there_are():
    """Benjamini and Hochberg 1995: of m differences, the k-th smallest p is multiplied by m / k."""
    random = np.random.default_rng(0)
    groups = {f"group {k}": 0.3 * (k == 0) for k in range(10)}
    results = {
        (variant, seed, group): {"auc": mean_over_users(random.normal(0, 0.1, 30) + better * (variant == "all"))}
        for variant in ("all", "without title")
        for seed in range(3)
        for group, better in groups.items()
    }
    effects = sorted(all_effects(results, contrasts_of(["all", "without title"])), key=lambda one: one.change.p)
    raw = [one.change.p * 10 / (k + 1) for k, one in enumerate(effects)]
    assert [one.q for one in effects] == pytest.approx(np.minimum.accumulate(raw[::-1])[::-1])
    assert effects[0].group == "group 0" and effects[0].q < 0.05 < effects[1].q


def test_every_pair_of_measured_variants_has_its_contrast():
    names = [*variants_of("gru", BLOCKS), "genre kNN"]
    metric = {"auc": mean_over_users(np.arange(20) / 20)}
    results = {(name, seed, "warm"): metric for name, seed in itertools.product(names, (0, 1))}
    effects = all_effects(results, contrasts_of(names))
    assert [effect.what for effect in effects] == [what for what, *_ in contrasts_of(names)]
    assert all(effect.change == (0, 0, 0, 1) and effect.q == 1 for effect in effects)


def test_no_effect_is_spoken_of_where_few_units_were_tested():
    """An interval over three users would exceed the metric's range, and would add to the others' corrections."""
    random = np.random.default_rng(0)
    results = {
        (variant, seed, group): {"auc": mean_over_users(random.random(n))}
        for variant in ("all", "without title")
        for seed in range(3)
        for group, n in {"warm": 20, "rare": 19}.items()
    }
    assert [effect.group for effect in all_effects(results, contrasts_of(["all", "without title"]))] == ["warm"]


@pytest.mark.parametrize("preset", ["ncf-ranking", "transformer", "gru"])
def test_a_model_without_ids_learns_of_cold_movies_as_the_whole_one_does(preset):
    """Where training hides ids, new movies are no candidates in it; a model of ids alone hides none."""
    settings, variants = Settings(preset=preset), variants_of(preset, BLOCKS)
    models = {name: config_of(settings, variants, name, 0).model for name in ("all", "features only", "ids only")}
    assert models["features only"] == dataclasses.replace(models["all"], ids=False)
    assert models["ids only"] == dataclasses.replace(models["all"], id_dropout=0.0)
