"""Training to rank: negatives, the sampled softmax, and lists from which the figures can be had."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, tiny_ratings, write_dat
from hypothesis import given, settings
from hypothesis import strategies as st
from test_train import rows_of, states_are_equal

from Models.checkpoint import read_checkpoint, rebuild
from Models.dataLoader import make_loader, split_rows
from Models.inputs import describe
from Models.objectives import RankingObjective
from Models.Recommender import ModelConfig, Recommender, draw_negatives

RATIOS = (0.5, 0.3, 0.2)
PRESETS = {
    "ncf-ranking": ("--embedding", 4, "--hidden", 8, 4, "--batch-size", 32, "--negatives", 5),
    "transformer": ("--embedding", 4, "--length", 6, "--batch-size", 8),
    "gru": ("--embedding", 4, "--length", 6, "--batch-size", 8),
    "autoencoder": ("--embedding", 4, "--batch-size", 8),
}


def command(preset: str, data: Path, features: Path, run: Path, *flags: object) -> list[str]:
    places = ("--data", data, "--features", features, "--run", run, "--split", "leave-one-out", "--relevant", 0)
    words = (sys.executable, ROOT / "train.py", "--preset", preset, *places, *PRESETS[preset], "--epochs", 3, *flags)
    return [str(word) for word in words]


@pytest.fixture(scope="module", params=PRESETS)
def ranked(request, tiny, tiny_features, tmp_path_factory) -> tuple[str, Path]:
    """A preset's name and a run of it."""
    run = tmp_path_factory.mktemp("ranked") / "run"
    subprocess.run(command(request.param, tiny, tiny_features, run), check=True, capture_output=True)
    return request.param, run


# --- negatives -----------------------------------------------------------------------------------


@settings(deadline=None, max_examples=50)
@given(st.data())
def test_negatives_are_unrated_and_differ_and_all_can_come(draw):
    n_movies = draw.draw(st.integers(2, 12))
    rated = draw.draw(st.lists(st.sets(st.integers(0, n_movies - 1), max_size=n_movies - 1), min_size=1, max_size=4))
    pairs = [(user, movie) for user, movies in enumerate(rated) for movie in movies]
    if not pairs:
        return
    n = min(n_movies - len(movies) for movies in rated)
    keys = torch.tensor(sorted(user * n_movies + movie for user, movie in pairs))
    users = torch.arange(len(rated)).repeat(40)
    negatives = draw_negatives(users, keys, n_movies, n)
    for user, row in zip(users.tolist(), negatives.tolist(), strict=True):
        assert len(set(row)) == n and not set(row) & rated[user]


def test_negatives_are_uniform():
    torch.manual_seed(0)
    drawn = draw_negatives(torch.zeros(4000, dtype=torch.int64), torch.tensor([1, 3]), 6, 2)
    share = torch.bincount(drawn.flatten(), minlength=6) / drawn.numel()
    assert share.tolist() == pytest.approx([0.25, 0, 0.25, 0, 0.25, 0.25], abs=0.02)


def test_more_negatives_than_unrated_movies_are_refused(run_script, tiny, tiny_features):
    flags = ("--data", tiny, "--features", tiny_features, "--objective", "ranking", "--negatives", 500)
    assert "unrated movies: lower --negatives" in run_script("train.py", *flags, code=1).stderr


def test_the_sampled_softmax_by_hand(data):
    """With as many negatives as the user has unrated movies, none is left to chance."""
    rows = np.flatnonzero(data.user == 2)
    sizes, known = describe(data, rows)
    unrated = sorted(set(range(sizes.n_movies)) - set(data.movie[rows].tolist()))
    shape = {"embedding": 4, "hidden": (8, 4), "dropout": 0, "l2": 0, "l2_bias": 0}
    model = Recommender(ModelConfig(objective="ranking", negatives=len(unrated), **shape), sizes, known).train()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    batch = next(iter(make_loader(data, rows, len(rows))))
    scores = model.score(torch.tensor([2]))[0]
    expected = [cross_entropy(scores, movie, unrated) for movie in batch["movie"].tolist()]
    torch.testing.assert_close(model(batch)[1], torch.stack(expected).mean())


def cross_entropy(scores: torch.Tensor, movie: int, others: list[int]) -> torch.Tensor:
    return torch.logsumexp(scores[torch.tensor([movie, *others])], 0) - scores[movie]


# --- the user's commands -------------------------------------------------------------------------


def test_the_figures_can_be_had_from_the_lists(ranked, data):
    _, run = ranked
    test = json.loads((run / "test_metrics.json").read_text())
    split = split_rows(data, "leave-one-out", RATIOS)
    target = {str(data.user_ids[data.user[row]]): str(data.movies["movie"].iloc[data.movie[row]]) for row in split.test}
    places = {
        row["userId"]: int(row["rank"])
        for row in rows_of(run / "test_topn.csv")
        if target[row["userId"]] == row["movieId"]
    }
    assert test["hr@10"] == pytest.approx(len(places) / len(target))
    assert test["ndcg@10"] == pytest.approx(sum(1 / np.log2(1 + rank) for rank in places.values()) / len(target))
    assert test["most_popular"]["hr@10"] > 0 and test["users"] == 30
    assert "leave-one-out" in test["protocol"] and "27 movies ranked" in test["protocol"]
    with (run / "metrics.csv").open() as file:
        chosen = max(csv.DictReader(file), key=lambda row: float(row["val_ndcg@10"]))
    assert test["best_epoch"] == int(chosen["epoch"])


def test_lists_hold_nothing_that_the_user_knew(ranked, data):
    _, run = ranked
    split = split_rows(data, "leave-one-out", RATIOS)
    known = {
        (data.user_ids[data.user[row]], data.movies["movie"].iloc[data.movie[row]])
        for row in (*split.train, *split.val)
    }
    listed = {(int(row["userId"]), int(row["movieId"])) for row in rows_of(run / "test_topn.csv")}
    assert len(listed) == 30 * 10 and not listed & known


def test_a_checkpoint_ranks_by_itself_as_it_was_tested(ranked, data):
    _, run = ranked
    model, _ = rebuild(read_checkpoint(run / "best.pt"), torch.device("cpu"))
    split = split_rows(data, "leave-one-out", RATIOS)
    known = np.concatenate([split.train, split.val])
    ranking = RankingObjective(data, split, 0).rank(model, known, split.test)
    lists = [[int(row["movieId"]) for row in rows_of(run / "test_topn.csv") if row["userId"] == "1"]]
    assert data.movies["movie"].to_numpy()[ranking.lists[0]].tolist() == lists[0]


def test_test_ratings_touch_neither_training_nor_lists(ranked, run_script, data, tiny_features, tmp_path):
    """Another last movie of every user: the same weights and the same lists, as from any run of this seed."""
    preset, run = ranked
    split = split_rows(data, "leave-one-out", RATIOS)
    rows, folder = tiny_ratings(), tmp_path / "tiny"
    for row in split.test:
        user = rows[row][0]
        mine = {movie for u, movie, *_ in rows if u == user}
        other = next(movie for movie in range(2, 170, 7) if movie not in mine)
        rows[row] = (user, other, *rows[row][2:])
    subprocess.run(command(preset, write_dat(folder, rows), tiny_features, tmp_path / "run"), check=True)
    assert states_are_equal(tmp_path / "run/best.pt", run / "best.pt")
    assert rows_of(tmp_path / "run/test_topn.csv") == rows_of(run / "test_topn.csv")


def test_a_ranking_model_recommends_and_says_what_it_learned(ranked, run_script):
    _, run = ranked
    done = run_script("generate_recommendation.py", "--run", run)
    assert done.stdout.splitlines()[0].split() == ["rank", "id", "title", "score", "genres"]
    assert "learned to rank" in done.stderr


def test_the_loss_curve_of_a_ranking_model_is_drawn(ranked, run_script, tmp_path):
    _, run = ranked
    run_script("resultAnalyze/loss_ananlyze.py", "--run", run, "--output", tmp_path / "loss.png")
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
    refused = run_script("resultAnalyze/calibration.py", "--run", run, code=1)
    assert "predicts no stars" in refused.stderr


def test_a_rating_model_says_how_to_train_for_ranking(run_script, tiny_run):
    done = run_script("generate_recommendation.py", "--run", tiny_run)
    assert "learned stars" in done.stderr and "most popular" in done.stderr
    assert "python train.py --objective ranking" in done.stderr


def test_a_bar_that_no_rating_reaches_is_refused(run_script, tiny, tiny_features):
    flags = ("--data", tiny, "--features", tiny_features, "--objective", "ranking", "--relevant", 6)
    assert "No training rating has 6 stars or more: lower --relevant" in run_script("train.py", *flags, code=1).stderr


def test_a_model_that_does_not_learn_the_objective_is_refused(run_script, tiny, tiny_features):
    places = ("--data", tiny, "--features", tiny_features)
    done = run_script("train.py", *places, "--preset", "transformer", "--objective", "rating", code=1)
    assert "Sequential does not learn rating" in done.stderr
