"""The history model: its likelihood and leave-one-out errors by plain formulas, and which ratings a prediction sees."""

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import RATIOS, batch_of, one_history, random_model

from Models.dataLoader import make_loader
from Models.HistoryRecommender import (
    HistoryConfig,
    HistoryRecommender,
    MarginalLikelihood,
    SumOverRaters,
    available_context,
    clock_features,
)
from Models.inference.recommend import scores_of_known
from Models.inputs import DataStats, FeatureBlock, RatingScale
from Models.ratings_data import RatingsData, split_rows
from Models.sequences import NEW_USER, PaddedHistory, offsets


@pytest.fixture(scope="module")
def split(data):
    return split_rows(data, "random", RATIOS)


def made(data: RatingsData, rows: np.ndarray, **config) -> HistoryRecommender:
    return random_model(data, rows, HistoryConfig(embedding_dim=4, hidden_dim=5, **config), blocks=("title", "genres"))


@torch.inference_mode()
def predicted(model: HistoryRecommender, data: RatingsData, rows: np.ndarray, known: np.ndarray) -> torch.Tensor:
    """The predictions of these rows from the ratings of the rows `known`."""
    return model.predict(batch_of(data, rows), data.history(known))


# --- the Gaussian process ------------------------------------------------------------------------


def process(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A covariance with noise 1, and errors, in float64."""
    random = torch.Generator().manual_seed(seed)
    z = torch.randn(n, 3, generator=random, dtype=torch.float64)
    return z @ z.T + torch.eye(n, dtype=torch.float64), torch.randn(n, generator=random, dtype=torch.float64)


def test_the_marginal_likelihood_is_the_density_of_the_ratings():
    """Two users of 5 and 3 ratings, the second padded: minus the log density, without its constant."""
    kernel, error = torch.eye(5, dtype=torch.float64).repeat(2, 1, 1), torch.zeros(2, 5, dtype=torch.float64)
    log_noise, expected = torch.tensor(-0.4, dtype=torch.float64), 0.0
    for user, n in enumerate((5, 3)):
        kernel[user, :n, :n], error[user, :n] = process(n, user)
        covariance = log_noise.exp() * kernel[user, :n, :n]
        density = torch.distributions.MultivariateNormal(torch.zeros(n).double(), covariance)
        expected -= density.log_prob(error[user, :n]) + n / 2 * math.log(2 * math.pi)
    loss, _ = MarginalLikelihood.apply(kernel, error, log_noise, torch.tensor([5, 3]))
    torch.testing.assert_close(loss, expected)


def test_the_gradients_of_the_marginal_likelihood_are_right():
    z = torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True)
    error = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)
    log_noise = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)

    def loss(z, error, log_noise):
        return MarginalLikelihood.apply(z @ z.mT + torch.eye(4).double(), error, log_noise, torch.tensor([4, 4]))[0]

    assert torch.autograd.gradcheck(loss, (z, error, log_noise))


def test_leave_one_out_errors_are_those_of_a_fit_without_the_rating():
    kernel, error = process(6, 3)
    _, loo_error = MarginalLikelihood.apply(kernel[None], error[None], torch.tensor(0.0).double(), torch.tensor([6]))
    for k in range(6):
        others = [j for j in range(6) if j != k]
        weights = torch.linalg.solve(kernel[others][:, others], error[others])
        torch.testing.assert_close(loo_error[0, k], error[k] - kernel[k, others] @ weights)


def test_the_sum_over_raters_and_its_gradient_are_those_of_a_matrix():
    """For each of 4 movies, the sum of its raters' vectors, among 5 users; user 2 and movie 3 have no ratings."""
    user, movie = torch.tensor([0, 0, 1, 3, 3, 4]), torch.tensor([0, 2, 1, 0, 1, 2])
    by_movie = torch.argsort(movie, stable=True)
    edges = (
        *(user[by_movie], offsets(torch.bincount(movie, minlength=4))),
        *(movie, offsets(torch.bincount(user, minlength=5))),
    )
    rated = torch.zeros(4, 5)
    rated[movie, user] = 1
    vectors, slope = torch.randn(5, 3, requires_grad=True), torch.randn(4, 3)
    found, expected = SumOverRaters.apply(vectors, *edges), rated @ vectors
    torch.testing.assert_close(found, expected)
    gradients = (torch.autograd.grad((total * slope).sum(), vectors)[0] for total in (found, expected))
    torch.testing.assert_close(*gradients)


# --- which ratings a prediction sees -------------------------------------------------------------


def test_a_rating_does_not_affect_its_own_prediction_in_training(data, split):
    """Changing one training rating leaves its own prediction as it was, and changes others of the same user."""
    model = made(data, split.train).train()
    rows = split.train[np.isin(data.user[split.train], [3, 8])]
    batch = batch_of(data, data.by_user_and_time(rows))

    def predictions(rating: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(1)
        return model(batch | {"rating": rating}).prediction.detach()

    before = predictions(batch["rating"])
    for k in range(len(rows)):
        rating = batch["rating"].clone()
        rating[k] += 2
        change = predictions(rating) - before
        same_user = (batch["user"] == batch["user"][k]) & (torch.arange(len(rows)) != k)
        assert abs(change[k]) < 1e-4
        assert change[same_user].abs().max() > 1e-3 and change[batch["user"] != batch["user"][k]].abs().max() < 1e-4


def test_test_and_validation_ratings_affect_no_prediction(data, split):
    """Other ratings in the other rows leave a model of the same training rows unchanged."""
    changed = dataclasses.replace(data, rating=data.rating.copy())
    others = np.concatenate([split.val, split.test])
    changed.rating[others] = 6 - changed.rating[others]
    found = [predicted(made(one, split.train), one, split.test, split.train) for one in (data, changed)]
    assert torch.equal(*found)


def test_a_rating_does_not_affect_its_own_score_among_seen_movies(data):
    """Changing it leaves the score of its own movie as it was, and changes those of the others."""
    rows = np.arange(len(data.user))
    model = made(data, rows)
    history = data.history(rows).pad(torch.tensor([5]))
    rating = history.rating.clone()
    rating[0, 3] += 2
    with torch.inference_mode():
        before = scores_of_known(model, history)
        change = (scores_of_known(model, dataclasses.replace(history, rating=rating)) - before).abs()
    assert change[3] < 1e-5 < 1e-3 < change.max()


def test_predictions_do_not_depend_on_what_is_predicted_beside_them(data, split):
    model = made(data, split.train)
    together = predicted(model, data, split.test, split.train)
    rows = [split.test[k : k + 1] for k in range(len(split.test))]
    alone = torch.cat([predicted(model, data, row, split.train) for row in rows])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)


def test_predictions_for_users_without_a_history_depend_on_their_row_alone(data):
    """The order and the other rows do not matter."""
    split = split_rows(data, "cold-users", RATIOS)
    model = made(data, split.train)
    rows = split.test[~np.isin(data.user[split.test], data.user[split.train])]
    assert len(rows) > 20
    together = predicted(model, data, rows, split.train)
    reversed_rows = predicted(model, data, rows[::-1].copy(), split.train).flip(0)
    alone = torch.cat([predicted(model, data, rows[k : k + 1], split.train) for k in range(len(rows))])
    torch.testing.assert_close(together, reversed_rows, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
    batch = batch_of(data, rows)
    batch["time"][0] += 300 * 86_400
    with torch.inference_mode():
        one_later = model.predict(batch, data.history(split.train))
    torch.testing.assert_close(one_later[1:], together[1:], atol=1e-5, rtol=1e-5)


def test_chunks_do_not_change_predictions(data, split, monkeypatch):
    model = made(data, split.train)
    whole = predicted(model, data, split.test, split.train)
    monkeypatch.setattr("Models.HistoryRecommender.CHUNK_RATINGS", 20)
    torch.testing.assert_close(predicted(model, data, split.test, split.train), whole, atol=1e-4, rtol=1e-4)


def test_scoring_the_catalogue_is_predicting_at_the_time_of_the_last_rating(data, split):
    model, history = made(data, split.train), data.history(split.train)
    for user in (0, 7):
        now = data.time[split.train][data.user[split.train] == user].max()
        batch = {
            "user": torch.full((27,), user),
            "movie": torch.arange(27),
            "time": torch.full((27,), int(now)),
        }
        scores = model.score(history.pad(torch.tensor([user])))[0]
        torch.testing.assert_close(scores, model.predict(batch, history), atol=1e-4, rtol=1e-4)


def test_a_new_user_with_the_same_ratings_and_demographics_gets_the_same_predictions(data, split):
    """Nothing is learned for a single user except their implicit factor, which belongs to the movies."""
    without = dataclasses.replace(data, user_features=np.zeros_like(data.user_features))
    model = made(without, split.train)
    history = data.history(split.train).pad(torch.tensor([5]))
    new = dataclasses.replace(history, user=torch.tensor([NEW_USER]))
    with torch.inference_mode():
        torch.testing.assert_close(model.score(new), model.score(history))
    assert not torch.allclose(*(made(data, split.train).score(one) for one in (new, history)), atol=1e-3)


def test_users_without_training_ratings_are_served(data, split):
    train = split.train[data.user[split.train] != 4]
    model = made(data, train)
    rows = split.test[data.user[split.test] == 4]
    assert len(rows) and predicted(model, data, rows, train).isfinite().all()
    assert model.score(data.history(train).pad(torch.tensor([4]))).isfinite().all()


# --- context -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["time", "year", "demographics"])
def test_a_context_that_is_off_changes_nothing(data, split, name):
    """Changing its input for every row changes the predictions only if it is on."""
    changed = {
        "time": dataclasses.replace(data, time=data.time.max() - (data.time - data.time.min()) ** 2),
        "year": dataclasses.replace(data, movies=data.movies.assign(year=data.movies["year"] - 30)),
        "demographics": dataclasses.replace(data, user_features=1 - data.user_features),
    }[name]
    others = tuple({"time", "year", "demographics"} - {name})
    if name == "year":
        others = tuple(set(others) - {"time"})  # the clock includes the movie's age
    for context, same in ((others, True), ((*others, name), False)):
        found = [
            predicted(made(one, split.train, context=context), one, split.test, split.train) for one in (data, changed)
        ]
        assert torch.allclose(*found, atol=1e-3) == same


def test_context_that_the_data_lacks_is_left_out_with_a_notice():
    blocks = (FeatureBlock("title", "text", 8), FeatureBlock("genres", "category", 4))
    poor = DataStats(n_users=1, n_movies=1, blocks=blocks, mean_rating=3.0, scale=RatingScale(1.0, 5.0))
    rich = dataclasses.replace(poor, newest=10, n_user_features=2, has_years=True)
    every = ("time", "year", "demographics")
    assert available_context(HistoryConfig(), rich) == (every, [])
    no_years = dataclasses.replace(rich, has_years=False)
    words = "The data has no release years: trained without them."
    assert available_context(HistoryConfig(), no_years) == (("time", "demographics"), [words])
    assert available_context(HistoryConfig(context=("time",)), no_years) == (("time",), [])
    words = "The data has no times and no release years and no demographics: trained without them."
    assert available_context(HistoryConfig(), poor) == ((), [words])


def test_the_clock_by_hand():
    day = 86_400
    history = PaddedHistory(
        user=torch.tensor([NEW_USER]),
        movie=torch.zeros(1, 3, dtype=torch.int64),
        rating=torch.zeros(1, 3),
        time=torch.tensor([[day, 2 * day, 0]]),
        mask=torch.tensor([[True, True, False]]),
        request_time=torch.tensor([2 * day]),
    )
    found = clock_features(history, torch.tensor([[4 * day + day // 4]]), torch.tensor([[1960.0]]))[0, 0]
    expected = [np.log1p(3.25) / 4, np.log1p(2) / 4, 1, 0]  # 3.25 days after the first, two earlier ones, six o'clock
    np.testing.assert_allclose(found[:4], expected, atol=1e-6)
    week = 2 * np.pi * 4.25 / 7
    np.testing.assert_allclose(found[4:6], [np.sin(week), np.cos(week)], atol=1e-6)
    assert found[6] == pytest.approx((10 + 4.25 / 365.25) / 25, abs=1e-5)


def test_history_dropout_gives_the_prior_mean_of_a_new_user_in_training_alone(data):
    rows = np.arange(len(data.user))
    model = made(data, rows, history_dropout=0.999)
    history, items = data.history(rows).pad(torch.arange(8)), model.item_tower()
    asked = torch.arange(24).view(8, 3), torch.full((8, 3), 10**9)
    as_new = model.prior_mean(items | {"history": torch.zeros_like(items["history"])}, history, *asked)
    torch.testing.assert_close(model.train().prior_mean(items, history, *asked), as_new)
    assert not torch.allclose(model.eval().prior_mean(items, history, *asked), as_new, atol=1e-3)


# --- the formulas at the head of the file, with plain loops ---------------------------------------


class ByHand:
    """The model for one user without context and MLP."""

    def __init__(self, data: RatingsData, movies: list[int]):
        rows = np.arange(len(data.user))
        self.model = random_model(data, rows, HistoryConfig(embedding_dim=4, hidden_dim=0, context=()))
        self.movies, self.items = movies, self.model.item_tower()
        self.scale = (1 + self.model.movies.variance()[movies].sum(0)).rsqrt()

    def kernel(self, i: int, j: int) -> torch.Tensor:
        a, b = self.items["factors"][i] * self.scale, self.items["factors"][j] * self.scale
        cosine = a @ b / ((a @ a + 1e-3).sqrt() * (b @ b + 1e-3).sqrt())
        c_2, c_6 = self.model.log_cosine.exp()
        return self.model.log_constant.exp() + a @ b + c_2 * cosine**2 + c_6 * torch.exp(6 * cosine - 6)

    def noisy_kernel(self) -> torch.Tensor:
        return torch.stack([torch.stack([self.kernel(i, j) + (i == j) for j in self.movies]) for i in self.movies])

    def prior_mean(self, i: int) -> torch.Tensor:
        """The prior mean of one rated movie, from the others."""
        known = [j for j in self.movies if j != i]
        taste = self.items["history"][known].sum(0) / len(known) ** 0.5
        return self.model.mean + self.items["bias"][i] + self.items["factors"][i] @ taste


@torch.no_grad()
def test_the_posterior_mean_by_hand(data):
    one = ByHand(data, [2, 9, 4])
    rating = torch.tensor([4.0, 1.0, 3.0])
    error = rating - torch.stack([one.prior_mean(i) for i in one.movies])
    weights = torch.linalg.solve(one.noisy_kernel(), error)
    found = one.model.score(one_history(*one.movies, rating=rating.tolist()))[0]
    for i in range(27):
        if i not in one.movies:
            shared = torch.stack([one.kernel(i, j) for j in one.movies])
            torch.testing.assert_close(found[i], one.prior_mean(i) + shared @ weights, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_the_training_loss_by_hand(data):
    """The log density of one user's ratings, and their share of the divergence."""
    rows = data.by_user_and_time(np.flatnonzero(data.user == 5))
    one = ByHand(data, data.movie[rows].tolist())
    mean = torch.stack([one.prior_mean(i) for i in one.movies]).double()
    covariance = one.model.log_noise.exp() * one.noisy_kernel().double()
    density = torch.distributions.MultivariateNormal(mean, covariance)
    n = len(rows)
    loss = -density.log_prob(torch.from_numpy(data.rating[rows]).double()) - n / 2 * math.log(2 * math.pi)
    expected = (loss + one.model.divergence() * n / len(data.user)) / n
    output = one.model(batch_of(data, rows))
    torch.testing.assert_close(output.loss.double(), expected, atol=1e-4, rtol=1e-4)
    assert output.n_samples == n


@torch.no_grad()
def test_the_factors_of_a_movie_by_hand(data):
    """Its own plus those of its features and decade and of its raters; without the last if nobody rated it."""
    model = made(data, np.arange(len(data.user)))
    factors = model.item_tower()["factors"]
    for movie in (3, 25):
        raters = data.user[data.movie == movie]
        year = data.movies["year"][movie]
        decade = torch.zeros(13)
        decade[(year - 1900) // 10] = 1
        features = torch.cat([model.features[movie], decade]) @ model.feature_weights[:, :-1]
        audience = model.audience[raters].sum(0) / max(len(raters), 1) ** 0.5
        torch.testing.assert_close(factors[movie], model.movies.mean[movie] + features + audience)
    assert len(raters) == 0


def test_of_a_long_history_the_latest_ratings_are_read(data):
    """As if the user had rated nothing before: in predictions, scores and vectors."""
    rows = data.by_user_and_time(np.arange(len(data.user)))
    latest = pd.Series(rows).groupby(data.user[rows]).tail(5).to_numpy()
    users, batch = torch.arange(30), batch_of(data, rows)
    whole, short = (random_model(data, rows, HistoryConfig(max_length=n)) for n in (2500, 5))
    assert np.bincount(data.user).max() > 5
    for made in (lambda model, known: model.predict(batch, known), lambda model, known: model.score(known.pad(users))):
        expected = made(whole, data.history(latest))
        torch.testing.assert_close(made(short, data.history(rows)), expected)
        assert not torch.allclose(made(whole, data.history(rows)), expected)
    torch.testing.assert_close(
        short.user_vectors(data.history(rows).pad(users)), whole.user_vectors(data.history(latest).pad(users))
    )


def test_predictions_do_not_depend_on_how_many_pairs_are_computed_at_a_time(data, monkeypatch):
    rows = np.arange(len(data.user))
    model, history = random_model(data, rows, HistoryConfig()), data.history(rows).pad(torch.arange(30))
    expected = model.score(history)
    monkeypatch.setattr("Models.HistoryRecommender.CHUNK_PAIRS", 30)
    torch.testing.assert_close(model.score(history), expected)


def test_a_long_history_trains_in_pieces(data):
    rows = np.arange(len(data.user))
    model = random_model(data, rows, HistoryConfig(max_length=5)).train()
    loader = make_loader(data, rows, 64, 0, model.batching)
    for batch in loader:
        assert batch["user"].bincount().max() <= 5
        model(batch).loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("context", [("year", "demographics"), ("time", "year", "demographics")])
def test_every_parameter_that_is_to_learn_gets_a_gradient(data, split, context):
    """Otherwise several processes would wait for each other's gradients."""
    model = made(data, split.train, context=context).train()
    model(batch_of(data, data.by_user_and_time(split.train))).loss.backward()
    assert all((one.grad is not None) == one.requires_grad for one in model.parameters())
