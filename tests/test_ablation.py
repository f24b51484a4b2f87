"""Did BERT help: the intervals against theory, the parts against plain counts, and the command as a user runs it."""

import csv
import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from Models.baselines import Fitted
from Models.comparison import Task
from Models.dataLoader import load_data, split_rows
from resultAnalyze.ablation import ARMS, Effect, measure, movie_parts, table_rows
from resultAnalyze.intervals import Measured, difference

SCRIPT = "resultAnalyze/ablation.py"


def test_the_interval_is_the_normal_one_for_many_users():
    random = np.random.default_rng(1)
    one, other = random.normal(0.3, 1, 4000), random.normal(0.2, 1, 4000)
    change, low, high = difference(Measured(one, np.ones(4000)), Measured(other, np.ones(4000)))
    half = 1.96 * (one - other).std() / 4000**0.5
    assert change == pytest.approx((one - other).mean())
    assert (change - low, high - change) == (pytest.approx(half, rel=0.1), pytest.approx(half, rel=0.1))


def test_pairing_takes_out_what_both_share():
    shared = np.random.default_rng(2).normal(0, 10, 500)
    weight = np.ones(500)
    change, low, high = difference(Measured(shared + 0.1, weight), Measured(shared, weight))
    assert (change, low, high) == pytest.approx((0.1, 0.1, 0.1))


def test_rmse_is_the_root_over_all_ratings_and_not_a_mean_over_movies():
    weight = np.array([1.0, 3.0])
    one, other = Measured(np.array([4.0, 0.0]), weight, root=True), Measured(np.array([4.0, 12.0]), weight, root=True)
    assert (one.value(), other.value()) == (1.0, 2.0)
    change, low, high = difference(one, other)
    assert change == -1.0 and low == pytest.approx(-2.0) and high == pytest.approx(0.0)  # only movie 2, only movie 1


@settings(max_examples=10, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=5, max_size=30))
def test_a_model_does_not_differ_from_itself(values):
    same = Measured(np.array(values), np.ones(len(values)))
    assert difference(same, same) == (0, 0, 0)


@pytest.mark.parametrize(
    ("metric", "interval", "agree", "verdict"),
    [
        ("rmse", (-0.03, -0.01), 3, "better"),
        ("ndcg@10", (-0.03, -0.01), 3, "worse"),
        ("rmse", (-0.05, 0.01), 3, "no effect is shown"),
        ("rmse", (-0.03, -0.01), 2, "no effect is shown"),  # one training went the other way
    ],
)
def test_verdicts_come_from_interval_and_seeds(metric, interval, agree, verdict):
    words = Effect("titles", "cold", metric, -0.02, *interval, agree, 3).verdict()
    assert words.startswith(f"Titles change cold-movie {metric.upper()} by -0.0200 [{interval[0]:+.4f}, ")
    assert words.endswith(f", in {agree} of 3 seeds: {verdict}.")


def test_parts_by_plain_counts(tiny, tiny_features):
    data = load_data(tiny, tiny_features)
    split = split_rows(data, "cold-movies", (0.5, 0.2, 0.3))
    parts = movie_parts(Task.of(data, split, split.train, 4.0, 10, 8))
    in_training = {movie: (data.movie[split.train] == movie).sum() for movie in range(len(data.movies))}
    tested = set(data.movie[split.test].tolist())
    others = set(data.movie[np.concatenate([split.train, split.val])].tolist())
    assert set(np.flatnonzero(parts["cold"])) == tested - others and parts["cold"].any()
    assert set(np.flatnonzero(parts["warm"])) == {movie for movie, n in in_training.items() if n > 5}
    assert not any(movies[[25, 26]].any() for movies in parts.values())  # nobody rated these two


def test_rankings_are_measured_without_stars(tiny, tiny_features):
    """Of the whole catalogue's lists: how much of them are cold movies, and whose list holds a liked one."""
    data = load_data(tiny, tiny_features)
    split = split_rows(data, "cold-movies", (0.5, 0.2, 0.3))
    task = Task.of(data, split, split.train, 4.0, 10, 8)
    scores = torch.from_numpy(np.random.default_rng(3).normal(size=(30, 27)))
    cold = movie_parts(task)["cold"]
    weight = torch.nn.Parameter(torch.ones(1))  # as of a model that was trained
    found = measure(task, Fitted(score=lambda users: scores[users] * weight), cold)
    as_stars = Fitted(lambda user, movie, time: scores[user, movie].numpy(), lambda users: scores[users])
    unclipped = dataclasses.replace(task, rows=dataclasses.replace(task.rows, rating=np.array([-9.0, 9.0])))
    assert found["auc"].value() == measure(unclipped, as_stars, cold)["auc"].value()
    known, shares, hits = np.concatenate([split.train, split.val]), [], []
    for user in range(30):
        seen = set(data.movie[known][data.user[known] == user].tolist())
        listed = [m for m in scores[user].argsort(descending=True).tolist() if m not in seen][:10]
        mine = split.test[data.user[split.test] == user]
        liked = {m for m in data.movie[mine][data.rating[mine] >= 4].tolist() if cold[m]}
        if liked:
            shares.append(np.mean([cold[m] for m in listed]))
            hits.append(bool(liked & set(listed)))
    assert found["list share"].value() == pytest.approx(np.mean(shares))
    assert found["list hr"].value() == pytest.approx(np.mean(hits)) and "rmse" not in found
    rows = table_rows({("stars", 0, "cold"): measure(task, as_stars, cold), ("ranks", 0, "cold"): found})
    assert list(rows[0]) == list(rows[1]) and rows[0]["list hr"] == rows[1]["rmse"] == ""


def test_an_ablation_is_complete_and_keeps_its_trainings(tiny, tiny_features, tmp_path, run_script):
    flags = ("--data", tiny, "--features", tiny_features, "--output", tmp_path / "out", "--seeds", 0, "--epochs", 2)
    run_script(SCRIPT, *flags)
    with (tmp_path / "out/ablation.csv").open(encoding="utf-8") as file:
        found = list(csv.DictReader(file))
    assert {row["arm"] for row in found} == {"user + movie bias", "genre kNN", *ARMS}
    assert all(0 < float(row["rmse"]) < 3 and 0 <= float(row["ndcg@10"]) <= 1 for row in found)
    table = (tmp_path / "out/ablation.md").read_text(encoding="utf-8")
    assert table.count("- Titles change cold-movie ") == 3 and "| titles shuffled | 1 |" in table
    assert (tmp_path / "out/ablation.png").read_bytes().startswith(b"\x89PNG")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out/runs").glob("*/best.pt")}
    (tmp_path / "out/runs/all-0/test_metrics.json").unlink()  # as if stopped before its test
    run_script(SCRIPT, *flags)
    assert len(times) == len(ARMS) and all(path.stat().st_mtime_ns == time for path, time in times.items())
    assert (tmp_path / "out/ablation.md").read_text(encoding="utf-8") == table
    assert "another protocol" in run_script(SCRIPT, *flags, "--relevant", 3, code=1).stderr


@pytest.mark.parametrize(
    ("relevant", "remedy"),
    [("5.5", "No test rating has 5.5 stars or more: lower"), ("0", "change --split or --relevant")],
)
def test_nothing_to_compare_is_a_sentence(tiny, tiny_features, tmp_path, run_script, relevant, remedy):
    places = ("--data", tiny, "--features", tiny_features, "--output", tmp_path / "out")
    assert remedy in run_script(SCRIPT, *places, "--relevant", relevant, code=1).stderr


def test_a_part_of_fewer_than_two_users_is_left_out(tiny, tiny_features):
    data = load_data(tiny, tiny_features)
    split = split_rows(data, "cold-users", (0.75, 0.1, 0.15))
    task = Task.of(data, split, split.train, 4.0, 10, 8)
    count = np.bincount(data.movie[split.train], minlength=27)
    users = {}
    for part, movies in {"rare": (count > 0) & (count < 6), "warm": count > 5}.items():
        rows = split.test[movies[data.movie[split.test]]]
        verdicts = [set((data.rating[rows[data.user[rows] == user]] >= 4).tolist()) for user in range(30)]
        users[part] = verdicts.count({True, False})
    assert users["rare"] == 1 and users["warm"] > 1  # one user gives no interval
    assert list(movie_parts(task)) == ["warm"]
