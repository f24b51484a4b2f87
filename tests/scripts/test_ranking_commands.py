"""Ranking runs: top-N lists from which the figures can be recomputed, and what the commands say about such runs."""

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import (
    RATIOS,
    SMALL,
    rows_of,
    states_are_equal,
    test_metrics,
    tiny_ratings,
    train_here,
    write_dat,
)

from Models.checkpoint import load_model
from Models.evaluation.rankings import RankingEvaluator
from Models.ratings_data import split_rows
from utils.files import UserError

PRESETS = ("ncf-ranking", "transformer", "gru", "autoencoder")


def training(preset: str, data: Path, features: Path, run: Path) -> tuple:
    flags = ("--data", data, "--features", features, "--run", run, "--preset", preset, "--epochs", 3, *SMALL[preset])
    return (*flags, "--split", "leave-one-out", "--relevance-threshold", 0)


@pytest.fixture(scope="module", params=PRESETS)
def ranked(request, tiny, tiny_features, tmp_path_factory) -> tuple[str, Path]:
    """A preset and a run of it."""
    run = tmp_path_factory.mktemp("ranked") / "run"
    return request.param, train_here(*training(request.param, tiny, tiny_features, run))


@pytest.fixture(scope="module")
def split(data):
    return split_rows(data, "leave-one-out", RATIOS)


def test_the_figures_can_be_had_from_the_lists(ranked, data, split):
    _, run = ranked
    test = test_metrics(run)
    target = {str(data.user_ids[data.user[row]]): str(data.movies["movie"].iloc[data.movie[row]]) for row in split.test}
    ranks = {
        row["userId"]: int(row["rank"])
        for row in rows_of(run / "test_topn.csv")
        if target[row["userId"]] == row["movieId"]
    }
    assert test["hr@10"] == pytest.approx(len(ranks) / len(target))
    assert test["ndcg@10"] == pytest.approx(sum(1 / np.log2(1 + rank) for rank in ranks.values()) / len(target))
    assert test["most_popular"]["hr@10"] > 0 and test["users"] == 30
    assert "leave-one-out" in test["protocol"] and "catalogue of 27 movies" in test["protocol"]
    assert (test["task"], test["relevance_threshold"]) == ("ranking", 0)
    epochs = rows_of(run / "metrics.csv")
    assert list(epochs[0]) == ["epoch", "train_loss", "val_hr@10", "val_ndcg@10", "seconds"]
    assert test["best_epoch"] == int(max(epochs, key=lambda row: float(row["val_ndcg@10"]))["epoch"])


def test_lists_hold_nothing_that_the_user_knew(ranked, data, split):
    _, run = ranked
    known = {
        (data.user_ids[data.user[row]], data.movies["movie"].iloc[data.movie[row]])
        for row in (*split.train, *split.val)
    }
    listed = {(int(row["userId"]), int(row["movieId"])) for row in rows_of(run / "test_topn.csv")}
    assert len(listed) == 30 * 10 and not listed & known


def test_a_checkpoint_ranks_by_itself_as_it_was_tested(ranked, data, split):
    _, run = ranked
    evaluator = RankingEvaluator(data, split, relevance_threshold=0)
    model = load_model(run / "best.pt", torch.device("cpu")).model
    score = evaluator.fitted_for_test(model).score
    ranking = evaluator.rank(score, evaluator.split.known, split.test)
    listed = [
        [int(row["movieId"]) for row in rows_of(run / "test_topn.csv") if row["userId"] == str(u)] for u in (1, 4)
    ]
    assert data.movies["movie"].to_numpy()[ranking.topn[:2]].tolist() == listed


def test_of_test_ratings_only_the_time_affects_lists_and_nothing_the_training(ranked, split, tiny_features, tmp_path):
    """If every user's last movie and rating change but their time does not, weights and lists stay the same."""
    preset, run = ranked
    rows = tiny_ratings()
    for row in split.test:
        user = rows[row][0]
        mine = {movie for u, movie, *_ in rows if u == user}
        other = next(movie for movie in range(2, 170, 7) if movie not in mine)
        rows[row] = (user, other, 6 - rows[row][2], rows[row][3])
    folder = write_dat(tmp_path / "tiny", rows)
    train_here(*training(preset, folder, tiny_features, tmp_path / "run"))
    assert states_are_equal(tmp_path / "run/best.pt", run / "best.pt")
    assert rows_of(tmp_path / "run/test_topn.csv") == rows_of(run / "test_topn.csv")


def test_what_a_list_owes_to_the_time_of_the_request_is_reported(ranked, data, split):
    """Reported apart: users asked after the second of their latest known rating, and lists without the request time."""
    preset, run = ranked
    test, known = test_metrics(run), np.concatenate([split.train, split.val])
    latest = {user: data.time[known][data.user[known] == user].max() for user in range(30)}
    later = {data.user_ids[data.user[row]] for row in split.test if data.time[row] > latest[data.user[row]]}
    assert test["later_second"]["share"] == pytest.approx(len(later) / 30)
    target = {data.user_ids[data.user[row]]: data.movies["movie"].iloc[data.movie[row]] for row in split.test}
    found = [row for row in rows_of(run / "test_topn.csv") if target[int(row["userId"])] == int(row["movieId"])]
    hits = sum(int(row["userId"]) in later for row in found)
    assert test["later_second"]["hr@10"] == pytest.approx(hits / len(later))
    takes_time = preset in ("transformer", "gru")
    assert ("request_time_unknown" in test) == takes_time
    assert ("request time: known" in test["protocol"]) == takes_time
    assert test.get("request_time") == ("known" if takes_time else None)


def test_a_model_without_the_time_of_the_request_says_so(places, tmp_path):
    flags = ("--preset", "transformer", "--epochs", 1, "--no-request-time", *SMALL["transformer"])
    run = train_here(*places, "--run", tmp_path / "run", *flags, "--split", "leave-one-out")
    test = test_metrics(run)
    assert "request time: not known" in test["protocol"] and "request_time_unknown" not in test


def test_a_ranking_run_is_shown_and_says_what_it_learned(run_script, places, tmp_path):
    flags = ("--preset", "transformer", "--epochs", 2, *SMALL["transformer"])
    run = train_here(*places, "--run", tmp_path / "run", *flags)
    done = run_script("generate_recommendation.py", "--run", run)
    assert done.stdout.splitlines()[0].split() == ["rank", "id", "title", "score", "genres"]
    assert "From run: Sequential, trained on tiny." in done.stderr and "learned to predict" not in done.stderr
    run_script("resultAnalyze/loss_ananlyze.py", "--run", run, "--output", tmp_path / "loss.png")
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
    done = run_script("resultAnalyze/calibration.py", "--run", run, "--output", tmp_path / "calibration.png", code=1)
    assert "was trained to rank and predicts no ratings" in done.stderr
    assert not list(tmp_path.glob("calibration.*"))


def test_a_threshold_above_all_ratings_is_refused(places, tmp_path):
    with pytest.raises(UserError, match="No training rating is 6 or higher: lower --relevance-threshold"):
        train_here(*places, "--run", tmp_path / "run", "--preset", "autoencoder", "--relevance-threshold", 6)
    assert not (tmp_path / "run").exists()


def test_flags_of_the_other_task_are_wrong_usage(places, tmp_path, capsys):
    with pytest.raises(SystemExit) as exit_of_script:
        train_here(*places, "--run", tmp_path / "run", "--preset", "ncf", "--relevance-threshold", 3)
    assert exit_of_script.value.code == 2
    assert "Unrecognized options: --relevance-threshold" in " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert not (tmp_path / "run").exists()
