"""The autoencoder and EASE: they are equal at weight 0, features count as users, and what is shown is no target."""

import numpy as np
import scipy.sparse as sp
import torch
from helpers import RATIOS, batch_of, one_history, random_model

from Models.Autoencoder import AutoencoderConfig
from Models.EASE import content_gram, item_weights
from Models.features import FeatureConfig
from Models.layers import rating_weights
from Models.ratings_data import model_inputs, split_rows
from resultAnalyze.baselines import ease


def test_with_weight_0_the_autoencoder_ranks_as_ease(data):
    rows = split_rows(data, "random", RATIOS).train
    model = random_model(data, rows, AutoencoderConfig(embedding_dim=4, network_weight=0.0, feature_weight=0.0))
    users = torch.arange(30)
    of_ease = ease(data.select(rows), 0, weighted=True).score(users)
    scores = model.score(data.history(rows).pad(users))
    torch.testing.assert_close(scores, (of_ease.clamp(min=0) + 0.1).log(), atol=1e-5, rtol=1e-5)


def test_the_network_adds_its_weighted_log_softmax(data):
    rows = np.arange(len(data.user))
    plain, both = (random_model(data, rows, AutoencoderConfig(embedding_dim=4, network_weight=w)) for w in (0.0, 0.7))
    history = data.history(rows).pad(torch.arange(30))
    added = both.score(history) - plain.score(history)
    torch.testing.assert_close(added, 0.7 * both.logits(history).log_softmax(1), atol=1e-4, rtol=1e-4)


def test_a_feature_counts_as_a_user(data):
    ratings = data.select(np.arange(len(data.user)))
    genres = torch.from_numpy(ratings.genres).double()
    with_users = sp.vstack([ratings.matrix(), sp.csr_matrix(ratings.genres.T)])
    torch.testing.assert_close(item_weights(ratings.matrix(), 3, genres @ genres.T), item_weights(with_users, 3))


def test_of_a_large_catalogue_the_most_rated_movies_have_item_weights(data):
    """The others are left to the network; for the movies that have weights, features count as usual."""
    rows = np.arange(len(data.user))
    config = AutoencoderConfig(embedding_dim=4, network_weight=0.0, ease_movies=10)
    model, history = random_model(data, rows, config), data.history(rows).pad(torch.arange(30))
    counts = np.bincount(data.movie, minlength=27)
    assert len(model.solved) == 10 and counts[model.solved].min() >= np.delete(counts, model.solved).max()
    ratings = data.select(rows)
    x = ratings.matrix(rating_weights(torch.from_numpy(ratings.rating)).numpy())[:, model.solved.numpy()]
    stats, inputs = model_inputs(data, rows, FeatureConfig())
    gram = content_gram(inputs, stats)[model.solved][:, model.solved]
    near = torch.from_numpy(x.toarray()) @ item_weights(x, content=100 * gram)
    scores = model.score(history).detach()
    torch.testing.assert_close(scores[:, model.solved], (near.clamp(min=0) + 0.1).log(), atol=1e-5, rtol=1e-5)
    assert np.allclose(np.delete(scores.numpy(), model.solved, 1), np.log(0.1))


def test_what_is_shown_is_no_target(data, monkeypatch):
    """If every rating is shown, no target is left; if none is, the targets are all that the user rated highly."""
    rows = data.by_user_and_time(np.flatnonzero(data.user == 3))
    config = AutoencoderConfig(embedding_dim=4, dropout=0)
    model = random_model(data, np.arange(len(data.user)), config, std=0.1).train()
    batch = batch_of(data, rows)
    monkeypatch.setattr("Models.layers.SHOWN", (1.1, 1.1))
    assert model(batch).loss == 0
    monkeypatch.setattr("Models.layers.SHOWN", (0.0, 0.0))
    logits = model.logits(data.history(rows[:0]).pad(torch.tensor([3])))[0].log_softmax(0)
    weight = torch.tensor([{1: 0.0, 2: 0.03, 3: 0.15, 4: 1.0, 5: 1.0}[int(rating)] for rating in data.rating[rows]])
    expected = -(weight * logits[torch.from_numpy(data.movie[rows])]).sum() / weight.sum().sqrt()
    output = model(batch)
    torch.testing.assert_close(output.loss, expected)
    assert output.n_samples == 1 and expected > 0


def test_the_order_and_the_times_of_ratings_do_not_matter(data):
    model = random_model(data, np.arange(len(data.user)), AutoencoderConfig(embedding_dim=4))
    one = one_history(3, 5, 7, rating=[1.0, 3.0, 5.0])
    other = one_history(7, 3, 5, rating=[5.0, 1.0, 3.0], time=[5, 6, 7])
    torch.testing.assert_close(model.score(one), model.score(other))
