"""The NCF's predictions and scores equal the formula, whatever else is in the batch."""

import dataclasses

import numpy as np
import pytest
import torch
from helpers import batch_of
from ncf_by_hand import ASKED, ByHand, all_movies, asked_at, made, of_user, predicted

from Models.features import FeatureConfig
from Models.ratings_data import RatingsData, model_inputs
from Models.Recommender import NCFConfig, Recommender
from Models.sequences import NEW_USER, PaddedHistory


@pytest.mark.parametrize("hidden_dim", [5, 0])
@pytest.mark.parametrize("known", ["training", "training and validation", "test", "none"])
def test_predictions_equal_the_formula(spread, split, train, known, hidden_dim):
    """The history is the given one; who rated a movie is known from the training rows alone."""
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


def test_test_and_validation_ratings_affect_no_prediction(spread, split, train):
    """Other ratings and times in the other rows leave a model of the same training rows unchanged."""
    changed = dataclasses.replace(spread, rating=spread.rating.copy(), time=spread.time.copy())
    others = np.concatenate([split.val, split.test])
    changed.rating[others] = 6 - changed.rating[others]
    changed.time[others] += 10**7
    batch = batch_of(spread, split.test)
    with torch.inference_mode():
        found = [made(one, train).predict(batch, one.history(train)) for one in (spread, changed)]
    assert torch.equal(*found)


def test_the_values_of_ratings_do_not_reach_predictions_but_through_what_is_learned(spread, train):
    """Neither those of the batch nor those that the model was built from."""
    other = dataclasses.replace(spread, rating=6 - spread.rating)
    batch = batch_of(spread, train)
    found = [made(one, train).train()(batch_of(one, train)).prediction for one in (spread, other)]
    found.append(made(spread, train).train()(batch | {"rating": 6 - batch["rating"]}).prediction)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])
    losses = [made(spread, train).train()(one).loss for one in (batch, batch_of(other, train))]
    assert abs(losses[0] - losses[1]) > 0.01


@pytest.mark.parametrize("hidden_dim", [5, 0])
def test_scoring_is_predicting_all_movies_at_the_time_of_the_last_rating(spread, split, train, hidden_dim):
    """From training ratings and from others; user 12 has none in training: the newest training time counts."""
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
    """Padding may be longer, and hold other movies, ratings and times."""
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


@torch.inference_mode()
def test_the_vectors_of_movies_are_their_z_by_hand(spread, train):
    """Movies that nobody rated have no audience."""
    model = made(spread, train)
    hand, vectors = ByHand(model, spread, train), model.movie_vectors()
    expected = torch.tensor(np.array([hand.z_of_movie(movie) for movie in range(27)]))
    torch.testing.assert_close(vectors.double(), expected, atol=1e-5, rtol=1e-5)
    assert not hand.raters[25] and not hand.raters[26]


@torch.inference_mode()
def test_the_product_of_the_vectors_is_what_scores_are_made_of(spread, train):
    """Without MLP and context, the rest is the mean and the biases, for users of the data and for new ones."""
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
