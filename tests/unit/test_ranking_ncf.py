"""The NCF that ranks: equal to its formula for any user, what it may learn from, and new movies."""

import dataclasses

import numpy as np
import pytest
import torch
from helpers import batch_of, one_history, random_model

from Models.inputs import HIGHEST
from Models.layers import draw_candidates
from Models.RankingRecommender import RankingNCFConfig
from Models.sequences import PaddedHistory

SMALL = {"embedding_dim": 4, "hidden_dim": 6, "dropout": 0.0, "temperature": 0.5}


def made(data, rows: np.ndarray | None = None, std: float = 0.3, **changes) -> torch.nn.Module:
    """A model built for these training rows, by default all, with every parameter random."""
    rows = np.arange(len(data.user)) if rows is None else rows
    return random_model(data, rows, RankingNCFConfig(**SMALL | changes), std=std)


def unit(vector: torch.Tensor) -> torch.Tensor:
    return vector / vector.square().sum().sqrt()


@pytest.mark.parametrize("changes", [{}, {"hidden_dim": 0}, {"ids": False}, {"temperature": 0.1}])
def test_scores_equal_their_formula(data, changes):
    model = made(data, **changes)
    movies, ratings = [3, 11, 20], [5.0, 1.0, 3.0]
    scores = model.score(one_history(*movies, rating=ratings))[0]
    ids = model.ids if model.config.ids else torch.zeros_like(model.ids)
    bias = model.movie_bias if model.config.ids else torch.zeros_like(model.movie_bias)
    z = [ids[i] + model.from_features.weight @ model.features[i] for i in range(27)]
    weight = {int(5 * k / HIGHEST): model.weight_steps[k - 1] for k in range(1, 6)}
    user = (100 / 3) ** 0.5 * sum(weight[int(r)] * z[i] for i, r in zip(movies, ratings, strict=True))
    if model.config.hidden_dim:
        user = user + model.mlp(user)
    for i in range(27):
        own = bias[i] + model.bias_from_features.weight[0] @ model.features[i]
        expected = unit(user) @ unit(z[i]) / model.config.temperature + own
        torch.testing.assert_close(scores[i], expected, atol=1e-5, rtol=1e-5)


def test_features_have_the_decades_of_the_movies(data):
    model = made(data)
    assert [block.name for block in model.stats.blocks] == ["title", "genres", "year", "popularity"]
    known = data.movies["year"].notna().to_numpy()
    assert model.features[:, -14:-1].sum(1).tolist() == known.tolist()


def test_a_user_is_their_ratings_alone(data):
    """Known users and new ones, in any order, at any time, padded or not."""
    model = made(data)
    expected = model.score(one_history(3, 5, 7, rating=[1.0, 3.0, 5.0]))
    same = (
        one_history(3, 5, 7, rating=[1.0, 3.0, 5.0], user=4),
        one_history(7, 3, 5, rating=[5.0, 1.0, 3.0], time=[5, 6, 7]),
    )
    for other in same:
        torch.testing.assert_close(model.score(other), expected)
    padded = one_history(3, 5, 7, 9, rating=[1.0, 3.0, 5.0, 5.0])
    padded = dataclasses.replace(padded, mask=torch.tensor([[True, True, True, False]]))
    torch.testing.assert_close(model.score(padded), expected)


def test_a_user_without_ratings_gets_finite_scores(data):
    for changes in ({}, {"hidden_dim": 0}):
        nothing = dataclasses.replace(one_history(3), mask=torch.zeros(1, 1).bool())
        assert made(data, **changes).score(nothing).isfinite().all()


def test_products_of_the_vectors_are_the_scores_without_biases(data):
    model, user = made(data), one_history(3, 5, rating=[4.0, 2.0])
    bias = model.item_tower(model.has_id)[1]
    torch.testing.assert_close(model.user_vectors(user) @ model.movie_vectors().T + bias, model.score(user))
    torch.testing.assert_close(model.movie_vectors().norm(dim=1), torch.ones(27))


def test_every_parameter_is_trained(data):
    model = made(data).train()
    output = model(batch_of(data, np.arange(len(data.user))))
    output.loss.backward()
    assert output.prediction is None and output.n_samples == 30
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.parameters())


def test_the_loss_is_that_of_hidden_movies_from_the_scores(data, monkeypatch):
    """With nothing shown, it is the weighted cross-entropy of all that a user rated, scored from an empty history."""
    monkeypatch.setattr("Models.layers.SHOWN", (0.0, 0.0))
    model = made(data).train()
    rows = data.by_user_and_time(np.flatnonzero(data.user == 3))
    log_p = model.score(PaddedHistory(*data.history(rows[:0]).pad(torch.tensor([3])).__dict__.values()))[0].log_softmax(
        0
    )
    weight = torch.tensor([{1: 0.0, 2: 0.03, 3: 0.15, 4: 1.0, 5: 1.0}[int(rating)] for rating in data.rating[rows]])
    expected = -(weight * log_p[torch.from_numpy(data.movie[rows])]).sum() / weight.sum().sqrt()
    torch.testing.assert_close(model(batch_of(data, rows)).loss, expected)


def test_scores_of_candidates_are_those_of_the_whole_catalogue(data):
    model, history = made(data), one_history(3, 11, 20, rating=[5.0, 1.0, 3.0])
    numbered, movies, _ = draw_candidates(history, 27, n_others=6)
    assert len(movies) == 9
    whole = model.score(history)
    scores = model.logits(numbered, *model.item_tower(movies=movies))
    torch.testing.assert_close(scores, whole[:, movies])


def test_a_step_over_drawn_candidates_trains(data):
    model = made(data, negatives=3).train()
    model(batch_of(data, np.flatnonzero(data.user == 3))).loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    assert 3 <= (model.ids.grad.abs().sum(1) > 0).sum() < 27


# --- new movies ----------------------------------------------------------------------------------


@pytest.fixture
def without_movie_5(data) -> np.ndarray:
    """The rows of all movies but movie 5, which is therefore new."""
    return np.flatnonzero(data.movie != 5)


def changed(model: torch.nn.Module) -> torch.nn.Module:
    """The same model with another embedding and bias of movie 5."""
    with torch.no_grad():
        model.ids[5] += 1
        model.movie_bias[5] += 1
    return model


def test_without_id_dropout_a_movie_that_nobody_chose_is_one_to_leave_out(data, without_movie_5):
    model = made(data, without_movie_5).train()
    model(batch_of(data, without_movie_5)).loss.backward()
    assert model.movie_bias.grad[5] > 0  # so that training lowers it


def test_with_id_dropout_a_new_movie_is_its_features(data, without_movie_5):
    """That nobody chose it does not count against it, and its row of the embeddings does not matter."""
    model = made(data, without_movie_5, id_dropout=0.5).train()
    batch = batch_of(data, without_movie_5)

    def loss() -> torch.Tensor:
        torch.manual_seed(0)
        return model(batch).loss

    loss().backward()
    assert not model.movie_bias.grad[5] and not model.ids.grad[5].any()
    user, before = one_history(3, 7), loss().detach()
    scores = model.eval().score(user)
    torch.testing.assert_close(changed(model).score(user), scores)
    model.train()
    torch.testing.assert_close(loss().detach(), before)


def test_ids_are_dropped_in_training_alone(data):
    model, user = made(data, id_dropout=0.5), one_history(3, 5, 7)
    assert torch.equal(model.score(user), model.score(user))
    batch = batch_of(data, np.arange(len(data.user)))
    model.train()(batch).loss.backward()
    dropped = (model.ids.grad == 0).all(1)
    assert 3 < dropped.sum() < 24


def test_without_ids_only_features_tell_movies_apart(data):
    model, user = made(data, ids=False), one_history(3, 5, 7)
    assert model.score(user).std() > 0.01
    model.features = model.features[:1].expand(27, -1)
    scores = model.score(user)
    torch.testing.assert_close(scores, scores[:, :1].expand(-1, 27))
