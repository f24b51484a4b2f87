"""The NCF's training loss equals the formula, in which no prediction sees its own rating."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from helpers import batch_of, threads
from ncf_by_hand import TOWERS, ByHand, as_new, made, of_user, predicted, trained
from torch.distributions import Normal, kl_divergence

from Models.features import FeatureConfig
from Models.inputs import DataStats, FeatureBlock, ModelInputs, RatingScale
from Models.ratings_data import model_inputs
from Models.Recommender import NCFConfig, Recommender
from Models.sequences import History


def test_predictions_in_training_equal_the_formula_without_the_rating_in_its_sums(spread, train):
    model = made(spread, train).train()
    hand, batch = ByHand(model, spread, train), batch_of(spread, train)
    columns = (batch[name].tolist() for name in ("user", "movie", "time"))
    rows = list(zip(*columns, strict=True))
    found = model(batch).prediction.detach().double()
    expected, with_itself = (
        torch.tensor([hand.prediction(*row, train, leave_out) for row in rows]) for leave_out in (True, False)
    )
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert (expected - with_itself).abs().mean() > 0.05


def test_a_prediction_in_training_is_that_of_a_model_that_never_had_the_rating(spread, train):
    """Session biases, which may belong to that rating alone, and popularities are exceptions and turned off."""
    towers = tuple(tower for tower in TOWERS if tower != "sessions")
    config, blocks = {"towers": towers, "std": 0.3}, ("title", "genres", "year")
    model = made(spread, train, blocks=blocks, **config).train()
    found = model(batch_of(spread, train)).prediction.detach()
    for k in range(0, len(train), 9):
        others = np.delete(train, k)
        alone = predicted(made(spread, others, blocks=blocks, **config), spread, train[k : k + 1], others)
        torch.testing.assert_close(found[k : k + 1], alone, atol=1e-5, rtol=1e-5)


def test_the_implicit_factor_of_a_rated_movie_does_not_reach_its_own_prediction(spread, train):
    """Changing it leaves the movie's predictions as they were, and changes those of its raters' other movies."""
    model, batch = made(spread, train).train(), batch_of(spread, train)
    before = model(batch).prediction.detach()
    with torch.no_grad():
        model.history[9] += 1
    change = (model(batch).prediction.detach() - before).abs()
    its_own = batch["movie"] == 9
    by_raters = torch.isin(batch["user"], batch["user"][its_own]) & ~its_own
    assert its_own.sum() > 3 and by_raters.sum() > 10
    assert change[its_own].max() < 1e-5 and change[~its_own & ~by_raters].max() < 1e-5
    assert (change[by_raters] > 1e-3).float().mean() > 0.9


def test_a_dropped_history_is_none_in_training_alone(spread, train):
    """About the given share of users lose their history; their predictions are those from an empty one."""
    model, batch = made(spread, train, history_dropout=0.5), batch_of(spread, train)
    with torch.no_grad():
        in_use = model.predict(batch, spread.history(train))
        model.train()
        whole, dropped = model(batch).prediction, made(spread, train, history_dropout=0.5)
        dropped.history.zero_()
        alone = dropped.train()(batch).prediction
        torch.testing.assert_close(model.eval().predict(batch, spread.history(train)), in_use)
    is_dropped = (whole - alone).abs() < 1e-5
    shares = torch.stack([is_dropped[batch["user"] == user].float().mean() for user in batch["user"].unique()])
    assert ((shares == 1) | (shares < 0.5)).all() and 8 < (shares == 1).sum() < 22


def test_predictions_in_training_do_not_depend_on_the_batch(spread, train):
    model = made(spread, train).train()
    together = model(batch_of(spread, train)).prediction
    alone = torch.cat([model(batch_of(spread, train[k : k + 1])).prediction for k in range(len(train))])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def expected_error(model: Recommender, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """The mean over the batch of E (r - prediction)^2, as in the training loss."""
    likelihood = model(batch).loss - model.divergence() / len(model.training_rated)
    return (2 * likelihood - model.log_noise) * model.log_noise.exp()


@torch.inference_mode()
def test_the_expected_error_is_the_mean_over_draws_of_p_q_and_sessions(spread, train):
    """For some ratings each, within a quarter of the smallest amount that a variance adds."""
    blocks = ("title", "genres", "year")
    model = made(spread, train, hidden_dim=0, blocks=blocks).train()
    hand, random, n = ByHand(model, spread, train, blocks), np.random.default_rng(0), 800_000
    for k in train[::30]:
        user, movie, time = (int(column[k]) for column in (spread.user, spread.movie, spread.time))
        own = of_user(spread, train, user)
        x = hand.x(user, movie, time, spread.time[own].tolist())
        rated = [i for i in spread.movie[own].tolist() if i != movie]
        z_u, z_i = hand.z_of_user(hand.value["users.mean"][user][:-1], x, rated), hand.z_of_movie(movie, without=user)
        *std_p, std_b = np.exp(hand.value["users.log_std"][user])
        std_q = np.exp(hand.value["movies.log_std"][movie])
        noise_p, noise_q = (random.normal(size=(n // 4, 4)) * std for std in (std_p, std_q))
        both = [(one * noise_p, other * noise_q) for one in (1, -1) for other in (1, -1)]  # each draw, mirrored
        product = np.concatenate([((z_u + one) * (z_i + other)).sum(1) for one, other in both])
        center = hand.prediction(user, movie, time, train, leave_out=True)
        std_p, std_b = np.array(std_p), np.array([std_b, *np.exp(hand.session_values("log_std", user, time))])
        biases = (random.normal(size=(len(product), 4)) * std_b).sum(1)
        square = (center + 1 - (center - z_u @ z_i + product + biases)) ** 2
        added = z_u**2 @ std_q**2, z_i**2 @ std_p**2, std_p**2 @ std_q**2, std_b @ std_b
        rating = torch.tensor([center + 1]).float()  # close enough for the variances to matter
        found = float(expected_error(model, batch_of(spread, np.array([k])) | {"rating": rating}))
        assert found == pytest.approx(square.mean(), abs=min(added) / 4)
        assert found == pytest.approx(1 + sum(added), rel=1e-3)
        error_of_mean = square.reshape(4, -1).mean(0).std() / (n // 4) ** 0.5
        assert min(added) / 4 > 4 * error_of_mean, "too few draws to tell"


@torch.inference_mode()
def test_without_ids_and_sessions_no_variance_is_in_the_expected_error(spread, train):
    model = made(spread, train, towers=tuple(tower for tower in TOWERS if tower not in ("ids", "sessions"))).train()
    batch = batch_of(spread, train)
    mean_square = (model(batch).prediction - batch["rating"]).square().mean()
    torch.testing.assert_close(expected_error(model, batch), mean_square, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_the_priors_part_of_the_loss_by_hand(spread, train):
    """It counts once, shared equally by all ratings; for p and q it is the divergence from the best Gaussian priors."""
    precisions = {"history": 2.0, "audience": 3.0, "feature": 5.0, "bias": 7.0}
    config = {f"{name}_precision": value for name, value in precisions.items()}
    model = made(spread, train, **config).train()
    parts = {"history": [model.history], "audience": [model.audience], "feature": [model.feature_weights]}
    parts["bias"] = [model.movie_bias]
    expected = sum(0.5 * precisions[name] * float((one**2).sum()) for name in parts for one in parts[name])
    for one in (model.users, model.movies, *model.sessions.biases):
        n, std = len(one.mean), one.log_std.exp()
        variance = (one.mean**2 + std**2).mean(0)
        prior = Normal(torch.zeros_like(one.mean), variance.sqrt().expand_as(one.mean))
        constant = 0.5 * one.mean.numel() * math.log(n)  # which the model leaves out
        expected += float(kl_divergence(Normal(one.mean, std), prior).sum()) + constant
    assert float(model.divergence()) == pytest.approx(expected, rel=1e-5)
    for rows in (train, train[:7]):
        batch = batch_of(spread, rows)
        output, noise = model(batch), model.log_noise.exp()
        likelihood = (expected_error(model, batch) / noise + noise.log()) / 2
        torch.testing.assert_close(output.loss, likelihood + expected / len(train), atol=1e-4, rtol=1e-4)
        assert output.n_samples == len(rows) and output.prediction.shape == (len(rows),)


@pytest.mark.parametrize("hidden_dim", [5, 0])
def test_every_parameter_is_trained(spread, train, hidden_dim):
    model = made(spread, train, hidden_dim=hidden_dim).train()
    model(batch_of(spread, train)).loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.abs().sum() > 0, name
    assert ("mlp.0.weight" in dict(model.named_parameters())) == (hidden_dim > 0)


def test_every_row_of_the_tables_is_trained(spread, train):
    """By its ratings or its prior, whether or not it has ratings in the batch."""
    model = made(spread, train).train()
    model(batch_of(spread, train[:5])).loss.backward()
    for parameter in [one for table in model.tables().values() for one in table]:
        assert (parameter.grad != 0).all()


def large_data(n_users: int = 300, n_movies: int = 200, n: int = 3_000) -> tuple[DataStats, ModelInputs]:
    """Random ratings, user after user and oldest first."""
    torch.manual_seed(0)
    blocks = (FeatureBlock("title", "text", 8), FeatureBlock("genres", "category", 3))
    stats = DataStats(n_users, n_movies, blocks, 3.5, RatingScale(1.0, 5.0), newest=10**9, has_years=True)
    pair = torch.randperm(n_users * n_movies)[:n].sort().values
    columns = pair // n_movies, pair % n_movies, torch.randint(1, 6, (n,)).float(), torch.arange(n) * 100 + 10**8
    inputs = (
        torch.randn(n_movies, 11),
        torch.full((n_movies,), 1990.0),
        torch.zeros(n_users, 0),
        torch.bincount(columns[1], minlength=n_movies),
    )
    return stats, ModelInputs(*inputs, training=lambda: History.of(*columns, n_users))


def test_gradients_of_a_large_batch_are_the_same_each_time():
    """Two threads, as users have: if they summed in an arbitrary order, two runs with one seed would differ."""
    stats, inputs = large_data()
    model = Recommender(NCFConfig(), stats, inputs)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    known = inputs.training()
    rows = torch.randperm(len(known.movie))[:2048]  # times 32 is enough for several threads
    columns = {"user": known.users(), "movie": known.movie, "rating": known.rating, "time": known.time}
    batch = {name: column[rows] for name, column in columns.items()}

    def gradients() -> dict[str, torch.Tensor]:
        torch.manual_seed(0)  # decides whose histories are dropped
        model.zero_grad()
        model(batch).loss.backward()
        return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}

    with threads(2):
        first = gradients()
        for _ in range(10):
            assert {name for name, part in gradients().items() if not torch.equal(part, first[name])} == set()


@pytest.mark.parametrize("lacking", ["nothing", "times", "demographics", "years", "all three"])
def test_data_that_lacks_something_trains_and_is_served(spread, split, lacking):
    poor = {
        "times": {"time": None},
        "demographics": {"user_features": np.zeros((30, 0), np.float32)},
        "years": {"movies": spread.movies.assign(year=np.full(len(spread.movies), np.nan))},
    }
    by_movie = np.where(spread.movie % 2, 4, 2) + np.random.default_rng(0).normal(size=len(spread.movie)) / 2
    spread = dataclasses.replace(spread, rating=by_movie.astype(np.float32))
    changes = {name: part for one in poor if lacking in (one, "all three") for name, part in poor[one].items()}
    data = dataclasses.replace(spread, **changes)
    torch.manual_seed(0)
    config = NCFConfig(embedding_dim=4, hidden_dim=5)
    model = Recommender(config, *model_inputs(data, split.train, FeatureConfig()))
    losses = trained(model, batch_of(data, split.train))
    assert losses[-1] < losses[0] - 0.1 and np.isfinite(losses).all()
    model.eval()
    error = (predicted(model, data, split.train, split.train) - batch_of(data, split.train)["rating"]).square().mean()
    assert error < 0.5 * data.rating[split.train].var()
    history = data.history(split.train).pad(torch.tensor([3, 12]))
    for one in (history, as_new(history)):
        assert model.score(one).isfinite().all()
