"""Sequential models: they know nothing of the future, and their loss is the one of their formula."""

import dataclasses

import numpy as np
import pytest
import torch
from helpers import RATIOS, batch_of, cross_entropy, one_history, random_model

from Models.dataLoader import split_rows
from Models.Sequential import Sequential, SequentialConfig

both_architectures = pytest.mark.parametrize("architecture", ["transformer", "gru"])


def made(data, rows=None, **config) -> Sequential:
    """A model of these rows, or of all ratings."""
    rows = np.arange(len(data.user)) if rows is None else rows
    config = SequentialConfig(embedding_dim=4, max_length=6, **config)
    return random_model(data, rows, config, blocks=("title", "genres"))


@both_architectures
def test_no_output_knows_of_later_ratings(data, architecture):
    model = made(data, architecture=architecture)
    vectors = model.movie_vectors()
    one, other = one_history(3, 5, 7, 9), one_history(3, 5, 8, 2, rating=[4.0, 4.0, 1.0, 1.0])
    a, b = model.read(vectors, one)[0], model.read(vectors, other)[0]
    torch.testing.assert_close(a[:3], b[:3])  # before the first, after the first and after the second rating
    assert not torch.allclose(a[3], b[3], atol=1e-3)


@both_architectures
def test_padding_changes_nothing(data, architecture):
    model = made(data, architecture=architecture)
    padded = dataclasses.replace(one_history(3, 5, 7, 9), mask=torch.tensor([[True, True, False, False]]))
    torch.testing.assert_close(model.score(padded), model.score(one_history(3, 5)), atol=1e-5, rtol=1e-5)


@both_architectures
def test_order_ratings_and_times_change_the_scores(data, architecture):
    model = made(data, architecture=architecture)
    scores = model.score(one_history(3, 5, 7))
    others = one_history(5, 3, 7), one_history(3, 5, 7, rating=1.0), one_history(3, 5, 7, time=[0, 100, 10**7])
    assert all(not torch.allclose(model.score(other), scores, atol=1e-3) for other in others)


def test_only_the_latest_ratings_count(data):
    model = made(data)
    long, same_end = one_history(*range(10)), one_history(20, 21, *range(2, 10))
    torch.testing.assert_close(model.score(long)[0], model.score(same_end)[0], atol=1e-4, rtol=1e-4)


def test_the_loss_by_hand(data):
    """Of each rated movie, cross-entropy among itself and the known movies outside the window; and the gradients."""
    rows = np.flatnonzero(np.isin(data.user, [0, 1]))
    model = made(data, rows)
    history = one_history(*data.movie[rows][:4].tolist())
    vectors = model.movie_vectors().detach().requires_grad_()
    hidden = model.read(vectors, history).detach().requires_grad_()
    rated = history.movie[0].tolist()
    others = sorted(set(data.movie[rows].tolist()) - set(rated))
    losses = [cross_entropy(vectors @ hidden[0, k], movie, others) for k, movie in enumerate(rated)]
    expected, loss = torch.stack(losses).mean(), model.loss(vectors, hidden, history)
    torch.testing.assert_close(loss, expected)
    gradients = (torch.autograd.grad(2 * value, (vectors, hidden)) for value in (loss, expected))
    for ours, right in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, right)


def test_the_training_loss_is_that_of_all_histories_of_the_batch(data):
    """Of users with no more than `max_length` ratings, so that the windows are not left to chance."""
    rows = np.concatenate([np.flatnonzero(data.user == user)[:n] for user, n in ((3, 6), (8, 2))])
    model = made(data, rows, dropout=0.0).train()
    output = model(batch_of(data, rows))
    history = data.history(rows).pad(torch.tensor([3, 8]))
    vectors = model.movie_vectors()
    losses = []
    for k, n in enumerate((6, 2)):
        own = history.row(k)
        losses.append(model.loss(vectors, model.read(vectors, own), own) * n)
    torch.testing.assert_close(output.loss, sum(losses) / 8)
    assert output.n_samples == 8 and output.prediction is None


def test_a_training_window_is_the_latest_ratings_or_any_other(data):
    model = made(data)
    torch.manual_seed(0)
    windows = [model.window(one_history(*range(10))).movie[0].tolist() for _ in range(200)]
    assert {tuple(window) for window in windows} == {tuple(range(first, first + 6)) for first in range(5)}
    assert windows.count(list(range(4, 10))) / 200 == pytest.approx(0.5 + 0.5 / 5, abs=0.12)


def test_movies_that_training_does_not_know_are_ranked_by_their_features(data):
    split = split_rows(data, "cold-movies", RATIOS)
    model = made(data, split.train)
    cold = np.setdiff1d(np.arange(27), data.movie[split.train])
    vectors = model.movie_vectors()
    torch.testing.assert_close(vectors[cold], model.from_features(model.features[cold]))
    assert model.score(one_history(3, 5))[0, cold].unique().numel() > 1


def test_without_ids_or_with_all_of_them_dropped_only_features_count(data):
    for model in (made(data, id_dropout=0.999).train(), made(data, ids=False)):
        torch.testing.assert_close(model.movie_vectors(), model.from_features(model.features))


def test_data_without_times_is_noticed(data):
    assert made(data).notices == []
    notices = made(dataclasses.replace(data, time=None)).notices
    assert notices == ["The data has no times: the order of the file stands in for them."]
