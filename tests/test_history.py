"""The history model: its evidence and left-out predictions against plain formulas, and no look at what it predicts."""

import dataclasses
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, tiny_ratings, write_dat
from test_train import rows_of, states_are_equal, without_times

from Models.Autoencoder import Autoencoder
from Models.checkpoint import read_checkpoint, rebuild
from Models.dataLoader import UserBatchSampler, load_data, make_loader, split_rows
from Models.evidence import Evidence
from Models.histories import Past, clock_features
from Models.HistoryRecommender import HistoryConfig, HistoryRecommender
from Models.inputs import describe
from Models.Sequential import Sequential
from utils.files import UserError

RATIOS = (0.5, 0.3, 0.2)
TRAINING = ("--epochs", 3, "--embedding", 4, "--units", 5, "--batch-size", 60)


@pytest.fixture(scope="module")
def data(tiny, tiny_features):
    return load_data(tiny, tiny_features)


@pytest.fixture(scope="module")
def split(data):
    return split_rows(data, "random", RATIOS)


def made(data, rows, **config) -> HistoryRecommender:
    """A model with every parameter random."""
    torch.manual_seed(0)
    model = HistoryRecommender(HistoryConfig(embedding=4, units=5, **config), *describe(data, rows))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def batch_of(data, rows) -> dict[str, torch.Tensor]:
    return next(iter(make_loader(data, rows, len(rows))))


@pytest.fixture(scope="module")
def history_run(tiny, tiny_features, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("history") / "run"
    subprocess.run(training(tiny, tiny_features, run), check=True, capture_output=True)
    return run


def training(data: Path, features: Path, run: Path, *flags: object) -> list[str]:
    command = [sys.executable, ROOT / "train.py", "--data", data, "--features", features, "--run", run]
    return [str(word) for word in (*command, *TRAINING, *flags)]


# --- the Gaussian process ------------------------------------------------------------------------


def process(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A covariance with noise 1 and errors, float64."""
    random = torch.Generator().manual_seed(seed)
    z = torch.randn(n, 3, generator=random, dtype=torch.float64)
    return z @ z.T + torch.eye(n, dtype=torch.float64), torch.randn(n, generator=random, dtype=torch.float64)


def test_the_evidence_is_the_density_of_the_ratings():
    """Two users of 5 and 3 ratings, the second padded: minus the log density, without its constant."""
    kernel, error = torch.eye(5, dtype=torch.float64).repeat(2, 1, 1), torch.zeros(2, 5, dtype=torch.float64)
    log_noise, expected = torch.tensor(-0.4, dtype=torch.float64), 0.0
    for user, n in enumerate((5, 3)):
        kernel[user, :n, :n], error[user, :n] = process(n, user)
        covariance = log_noise.exp() * kernel[user, :n, :n]
        density = torch.distributions.MultivariateNormal(torch.zeros(n).double(), covariance)
        expected -= density.log_prob(error[user, :n]) + n / 2 * np.log(2 * np.pi)
    loss, _ = Evidence.apply(kernel, error, log_noise, torch.tensor([5, 3]))
    torch.testing.assert_close(loss, expected)


def test_the_gradients_of_the_evidence_are_right():
    z = torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True)
    error = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)
    log_noise = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)

    def loss(z, error, log_noise):
        return Evidence.apply(z @ z.mT + torch.eye(4).double(), error, log_noise, torch.tensor([4, 4]))[0]

    assert torch.autograd.gradcheck(loss, (z, error, log_noise))


def test_left_out_errors_are_those_of_a_fit_without_the_rating():
    kernel, error = process(6, 3)
    _, left_out = Evidence.apply(kernel[None], error[None], torch.tensor(0.0).double(), torch.tensor([6]))
    for k in range(6):
        others = [j for j in range(6) if j != k]
        weights = torch.linalg.solve(kernel[others][:, others], error[others])
        torch.testing.assert_close(left_out[0, k], error[k] - kernel[k, others] @ weights)


# --- what a prediction sees ----------------------------------------------------------------------


def test_a_rating_does_not_touch_its_own_prediction_in_training(data, split):
    """Each training rating changed alone: its own prediction stays, those of the same user move."""
    model = made(data, split.train).train()
    rows = split.train[np.isin(data.user[split.train], [3, 8])]
    batch = batch_of(data, data.by_user_and_time(rows))

    def predictions(rating: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(1)
        return model(batch | {"rating": rating})[0].detach()

    before = predictions(batch["rating"])
    for k in range(len(rows)):
        rating = batch["rating"].clone()
        rating[k] += 2
        moved = predictions(rating) - before
        same_user = (batch["user"] == batch["user"][k]) & (torch.arange(len(rows)) != k)
        assert abs(moved[k]) < 1e-4
        assert moved[same_user].abs().max() > 1e-3 and moved[batch["user"] != batch["user"][k]].abs().max() < 1e-4


def test_test_and_validation_ratings_touch_no_prediction(data, split):
    """A model described with other ratings in these rows is the same."""
    turned = dataclasses.replace(data, rating=data.rating.copy())
    others = np.concatenate([split.val, split.test])
    turned.rating[others] = 6 - turned.rating[others]
    batch = batch_of(data, split.test)
    found = [made(one, split.train)(batch)[0] for one in (data, turned)]
    assert torch.equal(*found)


def test_predictions_do_not_depend_on_what_is_predicted_beside_them(data, split):
    model = made(data, split.train)
    together = model(batch_of(data, split.test))[0]
    alone = torch.cat([model(batch_of(data, split.test[k : k + 1]))[0] for k in range(len(split.test))])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)


def test_scoring_the_catalogue_is_predicting_at_the_user_s_last_time(data, split):
    model = made(data, split.train)
    for user in (0, 7):
        now = data.time[split.train][data.user[split.train] == user].max()
        batch = {
            "user": torch.full((27,), user),
            "movie": torch.arange(27),
            "time": torch.full((27,), int(now)),
        }
        torch.testing.assert_close(model.score(torch.tensor([user]))[0], model(batch)[0], atol=1e-4, rtol=1e-4)


def test_a_new_user_with_the_same_ratings_gets_the_same_predictions(data, split):
    model = made(data, split.train)
    mine = data.by_user_and_time(split.train[data.user[split.train] == 5])
    columns = (torch.from_numpy(column[mine])[None] for column in (data.movie, data.rating, data.time))
    past = Past(*columns, torch.ones(1, len(mine), dtype=torch.bool))
    batch = batch_of(data, split.test[data.user[split.test] == 5])
    features = torch.from_numpy(data.user_features[5:6])
    found = model.predict(model.movie_side(), past, features, batch["movie"][None], batch["time"][None])[0]
    torch.testing.assert_close(found, model(batch)[0], atol=1e-4, rtol=1e-4)


def test_users_without_training_ratings_are_served(data, split):
    train = split.train[data.user[split.train] != 4]
    model = made(data, train)
    stars = model(batch_of(data, split.test[data.user[split.test] == 4])).stars
    assert stars.isfinite().all()
    assert model.score(torch.tensor([4])).isfinite().all()


@pytest.mark.parametrize("name", ["time", "year", "demographics"])
def test_a_context_that_is_off_changes_nothing(data, split, name):
    """With the input changed for every row, predictions stay; with it on, they move."""
    changed = {
        "time": dataclasses.replace(data, time=data.time.max() - (data.time - data.time.min()) ** 2),
        "year": dataclasses.replace(data, movies=data.movies.assign(year=data.movies["year"] - 30)),
        "demographics": dataclasses.replace(data, user_features=1 - data.user_features),
    }[name]
    others = tuple({"time", "year", "demographics"} - {name})
    if name == "year":
        others = tuple(set(others) - {"time"})  # the clock has the movie's age
    for context, same in ((others, True), ((*others, name), False)):
        found = [made(one, split.train, context=context)(batch_of(one, split.test))[0] for one in (data, changed)]
        assert torch.allclose(*found, atol=1e-3) == same


def test_the_clock_by_hand():
    past = Past(
        movie=torch.zeros(1, 3, dtype=torch.int64),
        stars=torch.zeros(1, 3),
        time=torch.tensor([[86_400, 2 * 86_400, 0]]),
        real=torch.tensor([[True, True, False]]),
    )
    found = clock_features(past, torch.tensor([[4 * 86_400 + 21_600]]), torch.tensor([[1960.0]]))[0, 0]
    expected = [np.log1p(3.25) / 4, np.log1p(2) / 4, 1, 0]  # 3.25 days after the first, two before it, six o'clock
    np.testing.assert_allclose(found[:4], expected, atol=1e-6)
    assert found[6] == pytest.approx((10 + 4.25 / 365.25) / 25, abs=1e-5)


def test_without_their_history_users_are_expected_as_new_ones(data):
    """In training alone, and of the share that is asked for."""
    model = made(data, np.arange(len(data.user)), history_dropout=0.999)
    past, side, features = model.past(torch.arange(8)), model.movie_side(), model.user_features[:8]
    asked = torch.arange(24).view(8, 3), torch.full((8, 3), 10**9)
    as_new = model.expected(side | {"history": torch.zeros_like(side["history"])}, past, features, *asked)
    torch.testing.assert_close(model.train().expected(side, past, features, *asked), as_new)
    assert not torch.allclose(model.eval().expected(side, past, features, *asked), as_new, atol=1e-3)


# --- batches -------------------------------------------------------------------------------------


def test_a_history_too_long_for_memory_is_refused(data, split, monkeypatch):
    monkeypatch.setattr("Models.HistoryRecommender.LONGEST", 5)
    with pytest.raises(UserError, match="take --preset ncf"):
        HistoryRecommender(HistoryConfig(), *describe(data, split.train))


@pytest.mark.parametrize("model", [HistoryRecommender, Sequential, Autoencoder])
def test_training_batches_hold_whole_users(data, split, model):
    """At most 20 ratings or users."""
    sampler = UserBatchSampler(data, split.train, 20, seed=0, batching=model.batching)
    orders = []
    for epoch in (1, 2):
        sampler.set_epoch(epoch)
        batches = [rows.numpy() for rows in sampler]
        assert len(batches) == len(sampler)
        orders.append(np.concatenate(batches))
        assert sorted(orders[-1]) == sorted(split.train)
        users = [set(data.user[rows]) for rows in batches]
        assert sum(map(len, users)) == len(set().union(*users))
        for rows, some in zip(batches, users, strict=True):
            assert (len(rows) if model is HistoryRecommender else len(some)) <= 20 or len(some) == 1
            for user in some:
                assert (np.diff(data.time[rows][data.user[rows] == user]) >= 0).all()
    assert orders[0].tolist() != orders[1].tolist()


# --- the user's commands -------------------------------------------------------------------------


def test_no_test_rating_touches_training(run_script, data, split, tiny_features, history_run, tmp_path):
    test = set(split.test.tolist())
    turned = [(u, m, 6 - r if row in test else r, t) for row, (u, m, r, t) in enumerate(tiny_ratings())]
    folder = write_dat(tmp_path / "tiny", turned)
    run_script("train.py", "--data", folder, "--features", tiny_features, "--run", tmp_path / "run", *TRAINING)
    assert states_are_equal(tmp_path / "run/best.pt", history_run / "best.pt")
    assert without_times(tmp_path / "run")[1]["rmse"] != without_times(history_run)[1]["rmse"]


def test_a_killed_and_resumed_training_equals_one_that_was_never_stopped(run_script, tiny, tiny_features, tmp_path):
    """Killed after some of 60 epochs: the learning rate goes on along its curve."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run(training(tiny, tiny_features, whole, "--epochs", 60), check=True, capture_output=True)
    process = subprocess.Popen(training(tiny, tiny_features, killed, "--epochs", 60), stdout=subprocess.DEVNULL)
    while not (killed / "metrics.csv").exists() and process.poll() is None:
        time.sleep(0.001)
    process.kill()
    process.wait()
    assert not (killed / "test_metrics.json").exists()
    run_script("train.py", "--resume", killed)
    assert without_times(killed) == without_times(whole)
    assert states_are_equal(killed / "last.pt", whole / "last.pt")


def test_a_checkpoint_predicts_by_itself(history_run, data, split):
    model, _ = rebuild(read_checkpoint(history_run / "best.pt"), torch.device("cpu"))
    predictions = [float(row["prediction"]) for row in rows_of(history_run / "test_predictions.csv")]
    stars = model(batch_of(data, data.by_user_and_time(split.test)))[0].clamp(1, 5)
    np.testing.assert_allclose(stars.detach(), predictions, atol=1e-4)
    assert model.config.context == ("time", "year", "demographics")
    assert json.loads((history_run / "test_metrics.json").read_text())["model"] == type(model).__name__


def test_another_model_s_flag_is_refused(run_script, tiny, tiny_features):
    places = ("--data", tiny, "--features", tiny_features)
    done = run_script("train.py", *places, "--dropout", 0.1, code=1)
    assert "--dropout is a setting of --model Recommender" in done.stderr
    done = run_script("train.py", *places, "--preset", "ncf", "--units", 3, code=1)
    assert "--units is a setting of --model HistoryRecommender" in done.stderr


def test_context_that_the_data_lacks_is_left_out(run_script, tiny, tiny_features, tmp_path):
    folder = write_dat(tmp_path / "tiny", tiny_ratings())
    (folder / "users.dat").unlink()
    lines = (folder / "ratings.dat").read_text().splitlines()
    (folder / "ratings.dat").write_text("".join(line.rsplit("::", 1)[0] + "\n" for line in lines))
    done = run_script("train.py", "--data", folder, "--features", tiny_features, "--run", tmp_path / "run", *TRAINING)
    assert "tiny has no times and no demographics: trained without them" in done.stdout
    assert json.loads((tmp_path / "run/config.json").read_text())["settings"]["context"] == ["year"]
