"""The NCF: predictions, training loss and new users by plain loops over the formula at the head of its file."""

import dataclasses
import math
import re

import numpy as np
import pytest
import torch
from helpers import RATIOS, batch_of, one_history, random_model, threads
from torch.distributions import Normal, kl_divergence

from Models.features import FeatureConfig
from Models.inference.recommend import scores_of_known
from Models.inputs import DataStats, FeatureBlock, ModelInputs, RatingScale
from Models.ratings_data import RatingsData, model_inputs, split_rows
from Models.Recommender import SESSION_BREAKS, NCFConfig, Recommender
from Models.sequences import NEW_USER, History, PaddedHistory, offsets
from Models.training.command_line import parse_training

TOWERS = NCFConfig().towers
EVERY_MOVIE = torch.arange(27)
ASKED = [(0, 3), (0, 24), (7, 26), (7, 0), (12, 25), (29, 11)]  # user, movie; 24 has no year, 25 and 26 no rating


@pytest.fixture(scope="module")
def spread(data) -> RatingsData:
    """The small data set with ratings over weeks, two at a time, and demographics that tell users apart."""
    rank = np.arange(12).repeat(30).reshape(12, 30).T.ravel()  # of each rating among its user's
    time = 978_300_000 + data.user * 7_000 + rank // 2 * 130_000
    user_features = np.random.default_rng(0).integers(0, 2, (30, 3)).astype(np.float32)
    return dataclasses.replace(data, time=time, user_features=user_features)


@pytest.fixture(scope="module")
def split(spread):
    return split_rows(spread, "random", RATIOS)


@pytest.fixture(scope="module")
def train(spread, split) -> np.ndarray:
    """The training rows; user 12 has none."""
    return split.train[spread.user[split.train] != 12]


def made(data: RatingsData, rows: np.ndarray, std: float = 0.3, blocks=None, **config) -> Recommender:
    sizes = {"embedding_dim": 4, "hidden_dim": 5, "history_dropout": 0.0}
    return random_model(data, rows, NCFConfig(**sizes | config), std=std, blocks=blocks)


@torch.inference_mode()
def predicted(model: Recommender, data: RatingsData, rows: np.ndarray, known: np.ndarray) -> torch.Tensor:
    """The predictions of these rows from the ratings of the rows `known`."""
    return model.predict(batch_of(data, rows), data.history(known))


def asked_at(pairs: list[tuple[int, int]], time: int) -> dict[str, torch.Tensor]:
    """A batch of users and movies at one time."""
    user, movie = torch.tensor(pairs).T
    return {"user": user, "movie": movie, "time": torch.full_like(user, time)}


def all_movies(user: int, time: int) -> dict[str, torch.Tensor]:
    return asked_at([(user, movie) for movie in range(27)], time)


def of_user(data: RatingsData, rows: np.ndarray, user: int) -> np.ndarray:
    """The user's own of these rows, oldest first."""
    return data.by_user_and_time(rows[data.user[rows] == user])


def as_new(history: PaddedHistory) -> PaddedHistory:
    return dataclasses.replace(history, user=torch.full_like(history.user, NEW_USER))


# --- the formula ---------------------------------------------------------------------------------


class ByHand:
    """The formula with plain loops in float64, from the data and the values of the model's parameters alone."""

    def __init__(self, model: Recommender, data: RatingsData, train: np.ndarray, blocks=None):
        self.data, self.year = data, data.movies["year"].fillna(0).astype(int).tolist()
        self.raters = {i: [u for u, j in self.pairs(train) if j == i] for i in range(27)}
        self.value = {name: part.detach().double().numpy() for name, part in model.named_parameters()}
        self.features = model_inputs(data, train, FeatureConfig(blocks))[1].features.double().numpy()
        self.hidden_dim, self.sessions = (
            model.config.hidden_dim,
            [self.sessions_of(train, gap) for gap in SESSION_BREAKS],
        )

    def sessions_of(self, train: np.ndarray, gap: int) -> list[tuple[int, list[int]]]:
        """The user and the times of each session of the training ratings, in the order of users and times."""
        found = []
        for user in range(30):
            for time in sorted(self.data.time[of_user(self.data, train, user)].tolist()):
                if not found or found[-1][0] != user or time - found[-1][1][-1] > gap:
                    found.append((user, []))
                found[-1][1].append(time)
        return found

    def session_values(self, name: str, user: int, time: int) -> list[float]:
        """`mean` or `log_std` of the bias of each session of the user that a rating at this time belongs to."""
        found = []
        for k, (gap, sessions) in enumerate(zip(SESSION_BREAKS, self.sessions, strict=True)):
            near = [
                n for n, (u, times) in enumerate(sessions) if u == user and times[0] - gap <= time <= times[-1] + gap
            ]
            found += [float(self.value[f"sessions.biases.{k}.{name}"][near[0], 0])] if near else []
        return found

    def pairs(self, rows: np.ndarray) -> list[tuple[int, int]]:
        return list(zip(self.data.user[rows].tolist(), self.data.movie[rows].tolist(), strict=True))

    def f(self, movie: int) -> np.ndarray:
        """Title vector and genres, the decade, and the popularity that these promise."""
        decade = np.zeros(13)
        if self.year[movie]:
            decade[(self.year[movie] - 1900) // 10] = 1
        return np.concatenate([self.features[movie, :12], decade, self.features[movie, 25:]])

    def x(self, user: int, movie: int, time: int, times: list[int]) -> np.ndarray:
        """Demographics, and the clock of a user who rated at these times."""
        demographics = np.zeros(3) if user == NEW_USER else self.data.user_features[user]
        day, week = (2 * math.pi * (time % size) / size for size in (86_400, 7 * 86_400))
        days = max(time - min(times, default=time), 0) / 86_400
        older = sum(one < time for one in times)
        age = min(max(1970 + time / (365.25 * 86_400) - self.year[movie], 0), 100) if self.year[movie] else 0
        waves = math.sin(day), math.cos(day), math.sin(week), math.cos(week)
        return np.array([*demographics, math.log1p(days) / 4, math.log1p(older) / 4, *waves, age / 25])

    def z_of_movie(self, movie: int, without: int | None = None) -> np.ndarray:
        """`without`: this user in the audience."""
        z = self.value["movies.mean"][movie] + self.f(movie) @ self.value["feature_weights"][:, :-1]
        raters = [rater for rater in self.raters[movie] if rater != without]
        for rater in raters:
            z = z + self.value["audience"][rater] / math.sqrt(len(raters))
        return z

    def z_of_user(self, p: np.ndarray, x: np.ndarray, rated: list[int]) -> np.ndarray:
        z = p + x @ self.value["context_weights"][:, :-1]
        for movie in rated:
            z = z + self.value["history"][movie] / math.sqrt(len(rated) + 20)
        return z

    def mlp(self, z_u: np.ndarray, z_i: np.ndarray, x: np.ndarray) -> float:
        if not self.hidden_dim:
            return 0.0
        hidden = self.value["mlp.0.weight"] @ np.concatenate([z_u, z_i, x]) + self.value["mlp.0.bias"]
        return float(self.value["mlp.2.weight"][0] @ np.maximum(hidden, 0) + self.value["mlp.2.bias"][0])

    def prediction(self, user: int, movie: int, time: int, known: np.ndarray, leave_out: bool = False) -> float:
        """By a user of the data with the ratings of the rows `known`; `leave_out`: without this rating in the sums."""
        own = of_user(self.data, known, user)
        rated = [i for i in self.data.movie[own].tolist() if not (leave_out and i == movie)]
        *p, bias = self.value["users.mean"][user]
        bias += sum(self.session_values("mean", user, time))
        x = self.x(user, movie, time, self.data.time[own].tolist())
        return self.of_parts(np.array(p), bias, x, movie, rated, without=user if leave_out else None)

    def of_parts(
        self, p: np.ndarray, bias: float, x: np.ndarray, movie: int, rated: list[int], without: int | None = None
    ) -> float:
        z_u, z_i = self.z_of_user(p, x, rated), self.z_of_movie(movie, without)
        biases = bias + self.value["movie_bias"][movie] + self.f(movie) @ self.value["feature_weights"][:, -1]
        from_context = x @ self.value["context_weights"][:, -1]
        return self.value["mean"] + biases + from_context + z_u @ z_i + self.mlp(z_u, z_i, x)


@pytest.mark.parametrize("hidden_dim", [5, 0])
@pytest.mark.parametrize("known", ["training", "training and validation", "test", "none"])
def test_predictions_equal_the_formula(spread, split, train, known, hidden_dim):
    """From the history that is given; who rated the movies is known from the training alone."""
    rows = {
        "training": train,
        "training and validation": np.concatenate([train, split.val]),
        "test": split.test,
        "none": train[:0],
    }[known]
    model = made(spread, train, hidden_dim=hidden_dim)
    hand, history = ByHand(model, spread, train), spread.history(rows)
    for time in (900_000_000, int(spread.time[spread.user == 7][4]), 978_500_000, 1_100_000_000):
        with torch.inference_mode():
            found = model.predict(asked_at(ASKED, time), history)
        expected = torch.tensor([hand.prediction(user, movie, time, rows) for user, movie in ASKED])
        torch.testing.assert_close(found.double(), expected, atol=1e-4, rtol=1e-4)


def test_predictions_of_test_rows_equal_the_formula(spread, split, train):
    model = made(spread, train)
    hand, rows = ByHand(model, spread, train), split.test
    columns = spread.user[rows].tolist(), spread.movie[rows].tolist(), spread.time[rows].tolist()
    expected = torch.tensor([hand.prediction(*row, train) for row in zip(*columns, strict=True)])
    torch.testing.assert_close(predicted(model, spread, rows, train).double(), expected, atol=1e-4, rtol=1e-4)


def test_predictions_of_a_fresh_model_are_about_the_mean(spread, split, train):
    torch.manual_seed(0)
    model = Recommender(NCFConfig(), *model_inputs(spread, train, FeatureConfig())).eval()
    found = predicted(model, spread, split.test, train)
    torch.testing.assert_close(found, torch.full_like(found, spread.rating[train].mean()), atol=0.2, rtol=0)


def test_without_towers_and_mlp_every_prediction_is_the_mean(spread, split, train):
    model = made(spread, train, towers=(), hidden_dim=0)
    found = predicted(model, spread, split.test, train)
    assert torch.equal(found, model.mean.detach().expand_as(found))


def test_test_and_validation_ratings_affect_no_prediction(spread, split, train):
    """A model of the same training rows, with other ratings and times in the other rows, is the same."""
    changed = dataclasses.replace(spread, rating=spread.rating.copy(), time=spread.time.copy())
    others = np.concatenate([split.val, split.test])
    changed.rating[others] = 6 - changed.rating[others]
    changed.time[others] += 10**7
    batch = batch_of(spread, split.test)
    with torch.inference_mode():
        found = [made(one, train).predict(batch, one.history(train)) for one in (spread, changed)]
    assert torch.equal(*found)


# --- training ------------------------------------------------------------------------------------


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
    """But for the session's bias, which belongs to a rating of that time alone, and the popularities: they are off."""
    towers = tuple(tower for tower in TOWERS if tower != "sessions")
    config, blocks = {"towers": towers, "std": 0.3}, ("title", "genres", "year")
    model = made(spread, train, blocks=blocks, **config).train()
    found = model(batch_of(spread, train)).prediction.detach()
    for k in range(0, len(train), 9):
        others = np.delete(train, k)
        alone = predicted(made(spread, others, blocks=blocks, **config), spread, train[k : k + 1], others)
        torch.testing.assert_close(found[k : k + 1], alone, atol=1e-5, rtol=1e-5)


def test_the_implicit_factor_of_a_rated_movie_does_not_reach_its_own_prediction(spread, train):
    """Changed for one movie, predictions of that movie stay, and those of its raters' other movies change."""
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
    """Of about as many users as the share says; their predictions are those from an empty history."""
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


def test_the_values_of_ratings_do_not_reach_predictions_but_through_what_is_learned(spread, train):
    """Neither those of the batch nor those that the model was made with."""
    other = dataclasses.replace(spread, rating=6 - spread.rating)
    batch = batch_of(spread, train)
    found = [made(one, train).train()(batch_of(one, train)).prediction for one in (spread, other)]
    found.append(made(spread, train).train()(batch | {"rating": 6 - batch["rating"]}).prediction)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])
    losses = [made(spread, train).train()(one).loss for one in (batch, batch_of(other, train))]
    assert abs(losses[0] - losses[1]) > 0.01


def test_predictions_in_training_do_not_depend_on_the_batch(spread, train):
    model = made(spread, train).train()
    together = model(batch_of(spread, train)).prediction
    alone = torch.cat([model(batch_of(spread, train[k : k + 1])).prediction for k in range(len(train))])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def expected_error(model: Recommender, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """E (r - prediction)^2 as the training loss has it, its mean over the batch."""
    likelihood = model(batch).loss - model.divergence() / len(model.training_rated)
    return (2 * likelihood - model.log_noise) * model.log_noise.exp()


@torch.inference_mode()
def test_the_expected_error_is_the_mean_over_draws_of_p_q_and_sessions(spread, train):
    """Within a tolerance that is a quarter of the least of what the variances add, for each of some ratings."""
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
        both = [(one * noise_p, other * noise_q) for one in (1, -1) for other in (1, -1)]  # each draw with its mirrors
        product = np.concatenate([((z_u + one) * (z_i + other)).sum(1) for one, other in both])
        center = hand.prediction(user, movie, time, train, leave_out=True)
        std_p, std_b = np.array(std_p), np.array([std_b, *np.exp(hand.session_values("log_std", user, time))])
        biases = (random.normal(size=(len(product), 4)) * std_b).sum(1)
        square = (center + 1 - (center - z_u @ z_i + product + biases)) ** 2
        added = z_u**2 @ std_q**2, z_i**2 @ std_p**2, std_p**2 @ std_q**2, std_b @ std_b
        rating = torch.tensor([center + 1]).float()  # near enough for the variances to count
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
    """Once for all ratings, in equal parts for each; of p and q, the divergence from the best Gaussian priors."""
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
    """On two threads, as users have: added up in any order, two training runs with one seed would differ."""
    stats, inputs = large_data()
    model = Recommender(NCFConfig(), stats, inputs)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    known = inputs.training()
    rows = torch.randperm(len(known.movie))[:2048]  # times 32 is enough for several threads
    columns = {"user": known.users(), "movie": known.movie, "rating": known.rating, "time": known.time}
    batch = {name: column[rows] for name, column in columns.items()}

    def gradients() -> dict[str, torch.Tensor]:
        torch.manual_seed(0)  # whose histories are dropped
        model.zero_grad()
        model(batch).loss.backward()
        return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}

    with threads(2):
        first = gradients()
        for _ in range(10):
            assert {name for name, part in gradients().items() if not torch.equal(part, first[name])} == set()


def trained(model: Recommender, batch: dict[str, torch.Tensor], steps: int = 60) -> list[float]:
    """The losses of some steps on one batch, the last ones small."""
    optimizer, losses = torch.optim.Adam(model.parameters(), lr=0.05), []
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = model(batch).loss
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return losses


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


def test_the_clock_is_left_out_where_the_data_has_no_times(spread, split):
    """Of which its absence, the 1 January 1970, would be one."""
    data = dataclasses.replace(spread, time=None)
    model = made(data, split.train)
    before = predicted(model, data, split.test, split.train)
    with torch.no_grad():
        model.context_weights[3:] += 1
    assert torch.equal(predicted(model, data, split.test, split.train), before)


# --- scoring all movies --------------------------------------------------------------------------


@pytest.mark.parametrize("hidden_dim", [5, 0])
def test_scoring_is_predicting_all_movies_at_the_time_of_the_last_rating(spread, split, train, hidden_dim):
    """From training ratings and from others; of user 12, who has none in training, at the newest training time."""
    model = made(spread, train, hidden_dim=hidden_dim)
    for rows in (train, split.test):
        history = spread.history(rows)
        for user in (0, 12, 29):
            own = of_user(spread, rows, user)
            now = spread.time[own].max() if len(own) else spread.time[train].max()
            with torch.inference_mode():
                scores = model.score(history.pad(torch.tensor([user])))
                expected = model.predict(all_movies(user, int(now)), history)
            torch.testing.assert_close(scores[0], expected, atol=1e-5, rtol=1e-5)
            assert scores.shape == (1, 27) and scores.std() > 0.1


def test_users_without_a_history_are_scored_at_the_time_of_the_newest_training_rating(spread, train):
    model = made(spread, train)
    with torch.inference_mode():
        scores = model.score(spread.history(train[:0]).pad(torch.tensor([4, 12])))
        newest = int(spread.time[train].max())
        expected = [model.predict(all_movies(user, newest), spread.history(train[:0])) for user in (4, 12)]
    torch.testing.assert_close(scores, torch.stack(expected), atol=1e-5, rtol=1e-5)


def mixed_history(spread: RatingsData, rows: np.ndarray) -> PaddedHistory:
    """Histories of users of the data and of new users, long, short and empty."""
    history = spread.history(rows).pad(torch.tensor([0, 12, 7, 29, 12, 3]))
    user, mask = history.user.clone(), history.mask.clone()
    user[3:] = NEW_USER
    mask[5, 2:] = False
    return dataclasses.replace(history, user=user, mask=mask)


@torch.inference_mode()
def test_scores_do_not_depend_on_who_is_scored_beside_a_user(spread, train):
    model, history = made(spread, train), mixed_history(spread, train)
    together = model.score(history)
    alone = torch.cat([model.score(history.row(k)) for k in range(6)])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)
    columns = (column.flip(0) for column in vars(history).values())
    torch.testing.assert_close(model.score(PaddedHistory(*columns)).flip(0), together, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_scores_do_not_depend_on_padding(spread, train):
    """Longer, and of other movies, ratings and times."""
    model, history = made(spread, train), mixed_history(spread, train)
    padding = {"movie": 17, "rating": 1.0, "time": 1_500_000_000}
    columns = {
        name: torch.nn.functional.pad(torch.where(history.mask, getattr(history, name), value), (0, 4), value=value)
        for name, value in padding.items()
    }
    mask = torch.nn.functional.pad(history.mask, (0, 4))
    padded = PaddedHistory(history.user, **columns, mask=mask, request_time=history.request_time)
    torch.testing.assert_close(model.score(padded), model.score(history))
    torch.testing.assert_close(model.user_vectors(padded), model.user_vectors(history))


@torch.inference_mode()
def test_predictions_do_not_depend_on_what_is_predicted_beside_them(spread, split, train):
    model = made(spread, train)
    together = predicted(model, spread, split.test, train)
    alone = [predicted(model, spread, split.test[k : k + 1], train) for k in range(len(split.test))]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=1e-5)


# --- new users -----------------------------------------------------------------------------------


def objective(model: Recommender, hand: ByHand, data: RatingsData, own: np.ndarray):
    """What the training minimises over p and b of a user with these rows, who has no demographics, from its parts."""
    movies, times = data.movie[own].tolist(), data.time[own].tolist()
    x = [hand.x(NEW_USER, i, t, times) for i, t in zip(movies, times, strict=True)]
    others = [[j for j in movies if j != i] for i in movies]
    nothing = np.zeros(4)
    left = [hand.of_parts(nothing, 0.0, *one) for one in zip(x, movies, others, strict=True)]
    tastes = [hand.z_of_user(nothing, *one) for one in zip(x, others, strict=True)]
    rest, taste = torch.tensor(data.rating[own] - np.array(left)), torch.tensor(np.array(tastes))
    q = torch.tensor(np.array([hand.z_of_movie(i) for i in movies]))
    variance = torch.tensor(np.exp(2 * hand.value["movies.log_std"][movies]))
    noise, prior = math.exp(hand.value["log_noise"]), model.users.prior_variance().detach().double()
    prior_of_bias = prior[-1] + sum(one.prior_variance().detach().double() for one in model.sessions.biases)

    def loss(p: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        expected = (rest - bias - q @ p).square() + ((taste + p).square() * variance).sum(1)
        return 0.5 * (expected.sum() / noise + (p.square() / prior[:-1]).sum() + bias.square() / prior_of_bias).sum()

    return loss


def minimum(loss) -> tuple[torch.Tensor, torch.Tensor]:
    """p and b by a search that knows nothing of the closed form."""
    p, bias = torch.zeros(4).double().requires_grad_(), torch.zeros(()).double().requires_grad_()
    optimizer = torch.optim.LBFGS([p, bias], max_iter=300, tolerance_grad=1e-10, line_search_fn="strong_wolfe")

    def step() -> torch.Tensor:
        optimizer.zero_grad()
        value = loss(p, bias)
        value.backward()
        return value

    optimizer.step(step)
    return p.detach(), bias.detach()


@pytest.mark.parametrize("movies", ["certain", "uncertain"])
def test_a_new_user_is_the_minimum_of_the_training_objective(spread, train, movies):
    """Over their p and bias, all else fixed, in one session; with certain and with uncertain vectors of movies."""
    model = made(spread, train, hidden_dim=0)
    if movies == "certain":
        torch.nn.init.constant_(model.movies.log_std, -12.0)
    for user in (0, 7, 29):
        own = of_user(spread, train, user)
        p, bias = minimum(objective(model, ByHand(model, spread, train), spread, own))
        history = as_new(spread.history(train).pad(torch.tensor([user])))
        with torch.inference_mode():
            found = model.user_tower(history.user, history.flat(), model.item_tower())
        torch.testing.assert_close(found["p"][0].double(), p, atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(found["bias"][0].double(), bias, atol=1e-3, rtol=1e-3)
        assert p.abs().max() > 0.1 and abs(bias) > 0.02


@pytest.mark.parametrize("hidden_dim", [5, 0])
def test_scores_of_a_new_user_equal_the_formula_with_their_p_and_bias(spread, train, hidden_dim):
    """Without demographics, at the time of their last rating."""
    model = made(spread, train, hidden_dim=hidden_dim)
    hand, own = ByHand(model, spread, train), of_user(spread, train, 7)
    history = as_new(spread.history(train).pad(torch.tensor([7])))
    with torch.inference_mode():
        found, scores = model.user_tower(history.user, history.flat(), model.item_tower()), model.score(history)[0]
    p, bias = found["p"][0].double().numpy(), float(found["bias"])
    rated, times = spread.movie[own].tolist(), spread.time[own].tolist()
    x = [hand.x(NEW_USER, movie, times[-1], times) for movie in range(27)]
    expected = [hand.of_parts(p, bias, x[movie], movie, rated) for movie in range(27)]
    torch.testing.assert_close(scores.double(), torch.tensor(expected), atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_a_new_user_without_ratings_has_no_p_and_no_bias(spread, train):
    """And is scored at the time of the newest training rating."""
    model = made(spread, train)
    hand = ByHand(model, spread, train)
    history = one_history()
    found = model.user_tower(history.user, history.flat(), model.item_tower())
    assert not found["p"].any() and not found["bias"].any() and not found["taste"].any()
    newest = int(spread.time[train].max())
    expected = [hand.of_parts(np.zeros(4), 0.0, hand.x(NEW_USER, movie, newest, []), movie, []) for movie in range(27)]
    torch.testing.assert_close(model.score(history)[0].double(), torch.tensor(expected), atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_more_ratings_of_like_movies_move_predictions_towards_them(spread, train):
    """Of ten movies with one vector, more and more are rated with 5 and those of the opposite vector with 1."""
    model = made(spread, train, towers=("ids",), hidden_dim=0)
    model.movies.mean[:10], model.movies.mean[10:20] = 0.5, -0.5
    model.movies.log_std.fill_(-3.0)
    model.movie_bias[:20] = 0
    model.mean.fill_(3.0)
    liked, disliked = [], []
    for n in range(9):
        pairs = [(movie, rating) for k in range(n) for movie, rating in ((k, 5.0), (10 + k, 1.0))]
        rated, ratings = [movie for movie, _ in pairs], [rating for _, rating in pairs]
        scores = model.score(one_history(*rated, rating=ratings))[0]
        liked.append(float(scores[9]))
        disliked.append(float(scores[19]))
    assert liked == sorted(liked) and disliked == sorted(disliked, reverse=True)
    assert liked[0] == disliked[0] == 3.0 and 4.5 < liked[-1] < 5 and 1 < disliked[-1] < 1.5


@torch.inference_mode()
def test_the_order_of_ratings_of_one_time_does_not_matter(spread, train):
    model, movies, ratings = made(spread, train), [3, 14, 8, 25, 20], [5.0, 1.0, 4.0, 2.0, 3.0]
    times = [990_000_000] * 5
    first = model.score(one_history(*movies, rating=ratings, time=times))
    for order in ([4, 3, 2, 1, 0], [2, 0, 4, 1, 3]):
        changed = one_history(*(movies[k] for k in order), rating=[ratings[k] for k in order], time=times)
        torch.testing.assert_close(model.score(changed), first, atol=1e-4, rtol=1e-4)
    swapped = model.score(one_history(*movies, rating=ratings[::-1], time=times))
    assert (swapped - first).abs().max() > 0.1


@torch.inference_mode()
def test_a_rating_of_a_new_user_does_not_affect_its_own_score_among_seen_movies(spread, train):
    """Changed alone, it leaves the score of its own movie as it was, and changes those of the others."""
    model, history = made(spread, train), as_new(spread.history(train).pad(torch.tensor([5])))
    rating = history.rating.clone()
    rating[0, 3] += 2
    before = scores_of_known(model, history)
    change = (scores_of_known(model, dataclasses.replace(history, rating=rating)) - before).abs()
    assert change[3] < 1e-5 < 1e-3 < change.max()


def test_a_new_user_gets_the_predictions_of_a_trained_one_with_the_same_ratings(spread):
    """Once training has settled, without MLP, where every second user likes every second movie and no other."""
    rows = np.arange(len(spread.user))
    likes = (spread.user + spread.movie) % 2 == 0
    rating = np.where(likes, 4, 2) + np.random.default_rng(0).normal(size=len(rows)) / 2
    spread = dataclasses.replace(spread, rating=rating.astype(np.float32))
    torch.manual_seed(0)
    config = NCFConfig(embedding_dim=4, hidden_dim=0, towers=("ids", "features"))
    model = Recommender(config, *model_inputs(spread, rows, FeatureConfig()))
    for one in (model.users.mean, model.movies.mean):
        torch.nn.init.normal_(one, std=0.7)
    trained(model, batch_of(spread, rows), steps=500)
    history = spread.history(rows).pad(torch.arange(30))
    with torch.inference_mode():
        own, new, unknown = (model.eval().score(one) for one in (history, as_new(history), one_history()))
    differences = [float((one - own).square().mean()) for one in (new, unknown)]
    assert differences[1] > 0.2 and differences[0] < 0.01 * differences[1]


def test_scoring_leaves_the_model_as_it_was(spread, train):
    model, history = made(spread, train), mixed_history(spread, train)
    before = {name: part.clone() for name, part in [*model.named_parameters(), *model.named_buffers()]}
    with torch.inference_mode():
        first = model.score(history)
        model.user_vectors(history)
        assert torch.equal(model.score(history), first)
    model.score(history)
    after = dict([*model.named_parameters(), *model.named_buffers()])
    assert all(torch.equal(part, before[name]) for name, part in after.items())
    assert all(parameter.grad is None for parameter in model.parameters())


# --- towers --------------------------------------------------------------------------------------


@torch.inference_mode()
def outputs(model: Recommender, data: RatingsData, known: History, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Predictions in training and in use, and scores of users of the data and of new ones."""
    history = known.pad(torch.arange(0, 30, 7))
    scores = [model.score(one).flatten() for one in (history, as_new(history))]
    return torch.cat([model.train()(batch).prediction, model.eval().predict(batch, known), *scores])


def with_other(tower: str, data: RatingsData, rows: np.ndarray, towers: tuple) -> torch.Tensor:
    """The outputs of a model whose inputs of this tower, and nothing else, are others than the data's."""
    known, batch, made_of = data.history(rows), batch_of(data, rows), data
    if tower == "features":
        vectors = np.random.default_rng(1).normal(size=data.features.vectors.shape).astype(np.float32)
        made_of = dataclasses.replace(data, features=dataclasses.replace(data.features, vectors=vectors))
    if tower == "demographics":
        made_of = dataclasses.replace(data, user_features=1 - data.user_features)
    model = made(made_of, rows, towers=towers)
    with torch.no_grad():
        if tower == "ids":
            for one in (model.users.mean, model.users.log_std, model.movies.mean, model.movie_bias):
                one += torch.randn_like(one)
        if tower == "history":  # the implicit factors: which movies are rated is also in the new users' p
            model.history += torch.randn_like(model.history)
        if tower == "audience":  # other movies' raters
            n = model.training_n_of_movie.flip(0)
            model.training_n_of_movie, model.training_offset_of_movie = n, offsets(n)
        if tower == "sessions":
            for one in model.sessions.biases:
                one.mean += torch.randn_like(one.mean)
        if tower == "clock":
            known = dataclasses.replace(known, time=known.time + 5_000 * torch.arange(len(known.time)))
            model.training_time = known.time
            batch["time"] = batch["time"] + 1_234_567
    return outputs(model, made_of, known, batch)


@pytest.mark.parametrize("tower", TOWERS)
def test_a_tower_that_is_off_changes_nothing(spread, train, tower):
    """With its inputs changed, all that the model gives stays; with it on, it changes."""
    off = tuple(one for one in TOWERS if one != tower and (tower, one) != ("clock", "sessions"))  # both are of times
    for towers, same in ((off, True), (TOWERS, False), ((tower,), False)):
        rest = outputs(made(spread, train, towers=towers), spread, spread.history(train), batch_of(spread, train))
        assert torch.allclose(with_other(tower, spread, train, towers), rest, atol=1e-3) == same


@torch.inference_mode()
def test_without_the_history_tower_the_rated_movies_do_not_matter_to_users_of_the_data(spread, split, train):
    batch, known = batch_of(spread, split.test), spread.history(train)
    other = dataclasses.replace(known, movie=(known.movie + 1) % 27)
    for towers, same in ((TOWERS, False), (tuple(one for one in TOWERS if one != "history"), True)):
        model = made(spread, train, towers=towers)
        assert torch.equal(model.predict(batch, known), model.predict(batch, other)) == same


@torch.inference_mode()
def test_years_are_in_the_features_and_in_the_clock(spread, train):
    """In the one as decades, in the other as the movies' age; with both off, they do not matter."""
    older = dataclasses.replace(spread, movies=spread.movies.assign(year=spread.movies["year"] - 30))
    batch, known = batch_of(spread, train), spread.history(train)
    neither = ("ids", "history", "audience", "demographics")
    for towers, same in ((neither, True), ((*neither, "features"), False), ((*neither, "clock"), False)):
        found = [outputs(made(one, train, towers=towers), one, known, batch) for one in (spread, older)]
        assert torch.allclose(*found, atol=1e-3) == same


@pytest.mark.parametrize(
    ("config", "columns"),
    [(FeatureConfig(blocks=("genres", "year")), slice(8)), (FeatureConfig(blocks=("title", "year")), slice(8, None))],
    ids=["titles", "genres"],
)
def test_features_that_are_off_change_nothing(spread, split, train, config, columns):
    vectors = spread.features.vectors.copy()
    vectors[:, columns] = np.random.default_rng(1).normal(size=vectors[:, columns].shape)
    other = dataclasses.replace(spread, features=dataclasses.replace(spread.features, vectors=vectors))
    for features, same in ((config, True), (FeatureConfig(), False)):
        found = [
            predicted(random_model(one, train, NCFConfig(embedding_dim=4), **vars(features)), one, split.test, train)
            for one in (spread, other)
        ]
        assert torch.allclose(*found, atol=1e-3) == same


def test_towers_are_chosen_by_the_command_line(capsys):
    found = parse_training("", ["--preset", "ncf", "--towers", "features", "clock"])
    assert found.model == NCFConfig(towers=("features", "clock"))
    for words in (["ids", "mood"], ["titles"]):
        with pytest.raises(SystemExit) as caught:
            parse_training("", ["--towers", *words])
        assert caught.value.code == 2
        message = re.sub(r"[\s│]+", " ", capsys.readouterr().err)
        assert words[-1] in message and "demographics" in message


# --- vectors and tables --------------------------------------------------------------------------


@torch.inference_mode()
def test_the_vectors_of_movies_are_their_z_by_hand(spread, train):
    """Of movies that nobody rated, without an audience."""
    model = made(spread, train)
    hand, vectors = ByHand(model, spread, train), model.movie_vectors()
    expected = torch.tensor(np.array([hand.z_of_movie(movie) for movie in range(27)]))
    torch.testing.assert_close(vectors.double(), expected, atol=1e-5, rtol=1e-5)
    assert not hand.raters[25] and not hand.raters[26]


@torch.inference_mode()
def test_the_product_of_the_vectors_is_what_scores_are_made_of(spread, train):
    """Without MLP and context, the rest is the mean and the biases; of users of the data and of new ones."""
    model = made(spread, train, hidden_dim=0, towers=("ids", "history", "audience", "features"))
    history = mixed_history(spread, train)
    items = model.item_tower()
    bias = model.user_tower(history.user, history.flat(), items)["bias"]
    vectors = model.user_vectors(history)
    expected = model.mean + bias[:, None] + items[1] + vectors @ model.movie_vectors().T
    torch.testing.assert_close(model.score(history), expected, atol=1e-4, rtol=1e-4)
    rated = spread.movie[of_user(spread, train, 7)]
    expected = model.users.mean[7, :-1] + model.history[rated].sum(0) / (len(rated) + 20) ** 0.5
    torch.testing.assert_close(vectors[2], expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(vectors[1], model.users.mean[12, :-1])


def test_tables_are_the_parameters_with_a_row_for_each_user_movie_or_session(spread, train):
    model = made(spread, train)
    tables, names = model.tables(), {id(part): name for name, part in model.named_parameters()}
    found = {side: {names[id(part)] for part in parts} for side, parts in tables.items()}
    assert found["user"] == {"users.mean", "users.log_std", "audience"}
    assert found["movie"] == {"movies.mean", "movies.log_std", "history", "movie_bias"}
    assert found["session"] == {f"sessions.biases.{k}.{part}" for k in range(3) for part in ("mean", "log_std")}
    for side, n in (("user", 30), ("movie", 27)):
        assert all(len(part) == n for part in tables[side])
        assert {name for name, part in model.named_parameters() if part.shape[:1] == (n,)} == found[side]
