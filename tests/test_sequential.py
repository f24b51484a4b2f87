"""Sequential models: they know nothing of the future, and train by the loss that they say."""

import numpy as np
import pytest
import torch
from test_topn import RATIOS, cross_entropy

from Models.dataLoader import split_rows
from Models.histories import Past
from Models.inputs import describe
from Models.Sequential import Sequential, SequentialConfig


def made(data, rows, **config) -> Sequential:
    torch.manual_seed(0)
    model = Sequential(SequentialConfig(objective="ranking", embedding=4, length=6, **config), *describe(data, rows))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def past_of(*movies: int, stars: float = 4.0) -> Past:
    n = len(movies)
    time = torch.arange(n)[None] * 100
    return Past(torch.tensor([movies]), torch.full((1, n), stars), time, torch.ones(1, n, dtype=torch.bool))


@pytest.mark.parametrize("layer", ["transformer", "gru"])
def test_no_output_knows_of_later_ratings(data, layer):
    model = made(data, np.arange(len(data.user)), layer=layer)
    vectors = model.movie_vectors()
    one, other = past_of(3, 5, 7, 9), past_of(3, 5, 8, 2, stars=1.0)
    other.stars[:, :2] = 4.0
    a, b = model.read(vectors, one)[0], model.read(vectors, other)[0]
    torch.testing.assert_close(a[:3], b[:3])  # before the first, after the first and after the second rating
    assert not torch.allclose(a[3], b[3], atol=1e-3)


@pytest.mark.parametrize("layer", ["transformer", "gru"])
def test_padding_changes_nothing(data, layer):
    model = made(data, np.arange(len(data.user)), layer=layer)
    short, long = past_of(3, 5), past_of(3, 5, 7, 9)
    padded = Past(long.movie, long.stars, long.time, torch.tensor([[True, True, False, False]]))
    torch.testing.assert_close(model.score_past(padded), model.score_past(short), atol=1e-5, rtol=1e-5)


def test_only_the_latest_ratings_count(data):
    model = made(data, np.arange(len(data.user)))
    long, same_end = past_of(*range(10)), past_of(20, 21, *range(2, 10))
    torch.testing.assert_close(model.score_past(long)[0], model.score_past(same_end)[0], atol=1e-4, rtol=1e-4)


def test_the_loss_by_hand(data):
    """Each rated movie's cross-entropy among itself and the movies outside the window that are known, and gradients."""
    rows = np.flatnonzero(np.isin(data.user, [0, 1]))
    model = made(data, rows)
    past = past_of(*data.movie[rows][:4].tolist())
    vectors = model.movie_vectors().detach().requires_grad_()
    hidden = model.read(vectors, past).detach().requires_grad_()
    rated = past.movie[0].tolist()
    others = sorted(set(data.movie[rows].tolist()) - set(rated))
    expected = [cross_entropy(vectors @ hidden[0, k], movie, others) for k, movie in enumerate(rated)]
    expected, loss = torch.stack(expected).mean(), model.loss(vectors, hidden, past)
    torch.testing.assert_close(loss, expected)
    for ours, right in zip(
        *(torch.autograd.grad(2 * value, (vectors, hidden)) for value in (loss, expected)), strict=True
    ):
        torch.testing.assert_close(ours, right)


def test_movies_that_training_does_not_know_are_ranked_by_their_features(data):
    split = split_rows(data, "cold-movies", RATIOS)
    model = made(data, split.train)
    cold = np.setdiff1d(np.arange(27), data.movie[split.train])
    vectors = model.movie_vectors()
    torch.testing.assert_close(vectors[cold], model.from_features(model.features[cold]))
    assert model.score_past(past_of(3, 5))[0, cold].unique().numel() > 1


def test_with_all_ids_dropped_only_features_carry(data):
    model = made(data, np.arange(len(data.user)), id_dropout=0.999).train()
    torch.testing.assert_close(model.movie_vectors(), model.from_features(model.features))
