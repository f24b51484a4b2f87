"""The autoencoder and EASE: one is the other at weight 0, features count as users, and what is shown is no target."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from test_topn import RATIOS

from Models.Autoencoder import Autoencoder, AutoencoderConfig
from Models.baselines import Rows, ease_stars, item_item
from Models.dataLoader import make_loader, split_rows
from Models.histories import Past
from Models.inputs import DataSizes, describe
from utils.files import UserError


def test_with_weight_0_the_autoencoder_ranks_as_ease(data):
    rows = split_rows(data, "random", RATIOS).train
    config = AutoencoderConfig(objective="ranking", embedding=4, weight=0.0, feature_weight=0.0)
    model = Autoencoder(config, *describe(data, rows)).eval()
    users = torch.arange(30)
    ease = ease_stars(Rows.of(data, rows), 0).score(users)
    torch.testing.assert_close(model.score(users), (ease.clamp(min=0) + 0.1).log(), atol=1e-5, rtol=1e-5)


def test_a_feature_counts_as_a_user(data):
    rows = Rows.of(data, np.arange(len(data.user)))
    features = torch.from_numpy(rows.genres)
    with_users = sp.vstack([rows.matrix(), sp.csr_matrix(rows.genres.T)])
    torch.testing.assert_close(item_item(rows.matrix(), 3, features), item_item(with_users, 3))


def test_a_catalogue_too_large_for_ease_is_refused():
    sizes = DataSizes(n_users=1, n_movies=50_000, n_title=1, n_genres=1, mean_rating=3.0, low=1.0, high=5.0)
    with pytest.raises(UserError, match="50,000 movies, too many"):
        Autoencoder(AutoencoderConfig(objective="ranking"), sizes)


def test_what_is_shown_is_no_target(data, monkeypatch):
    """With every rating shown nothing is left to find, and with none, all that the user liked."""
    rows = np.flatnonzero(data.user == 3)
    known = describe(data, np.arange(len(data.user)))
    model = Autoencoder(AutoencoderConfig(objective="ranking", embedding=4, dropout=0), *known).train()
    batch = next(iter(make_loader(data, data.by_user_and_time(rows), len(rows))))
    monkeypatch.setattr("Models.Autoencoder.KEPT", (1.1, 1.1))
    assert model(batch)[1] == 0
    monkeypatch.setattr("Models.Autoencoder.KEPT", (0.0, 0.0))
    nothing = Past(*(torch.zeros(1, 1, dtype=kind) for kind in (torch.int64, torch.float32, torch.int64, torch.bool)))
    logits = model.logits(nothing)[0].log_softmax(0)
    weight = torch.tensor([{1: 0.0, 2: 0.03, 3: 0.15, 4: 1.0, 5: 1.0}[int(stars)] for stars in data.rating[rows]])
    expected = -(weight * logits[torch.from_numpy(data.movie[rows])]).sum() / weight.sum().sqrt()
    torch.testing.assert_close(model(batch)[1], expected)
