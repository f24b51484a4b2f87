"""The original: equal to its formula, however computed; features that are off change nothing."""

import dataclasses

import pytest
import torch
from helpers import threads

from Models.inputs import DataStats, FeatureBlock, ModelInputs, RatingScale
from Models.Original import Dropout, OriginalConfig, OriginalRecommender
from Models.sequences import PaddedHistory
from resultAnalyze.references import ReferenceNCF

BLOCKS = (FeatureBlock("title", "text", 8), FeatureBlock("genres", "category", 3))
STATS = DataStats(n_users=6, n_movies=9, blocks=BLOCKS, mean_rating=3.5, scale=RatingScale(1.0, 5.0))
BATCH = {
    "user": torch.tensor([0, 5, 5, 2]),
    "movie": torch.tensor([8, 1, 8, 0]),
    "rating": torch.tensor([4.0, 1.0, 5.0, 3.0]),
}


def made(features: torch.Tensor | None = None, stats: DataStats = STATS, **changes) -> OriginalRecommender:
    """A model with every parameter random."""
    torch.manual_seed(0)
    features = torch.randn(stats.n_movies, 11) if features is None else features
    nothing = torch.empty(0, dtype=torch.int64)
    inputs = ModelInputs(features, torch.zeros(9), torch.zeros(6, 0), nothing, training=lambda: None)
    config = OriginalConfig(**{"embedding_dim": 5, "hidden_dims": (7, 4), "dropout": 0.0} | changes)
    model = OriginalRecommender(config, stats, inputs)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    return model.eval()


def history_of(*users: int) -> PaddedHistory:
    """Histories of users of the data, whose ratings do not matter."""
    empty = torch.zeros(len(users), 1, dtype=torch.int64)
    return PaddedHistory(torch.tensor(users), empty, empty.float(), empty, empty.bool(), empty[:, 0])


@pytest.fixture
def two_threads():
    with threads(2):
        yield


# --- the formula ---------------------------------------------------------------------------------


def test_it_equals_the_plain_concatenation():
    model = made()
    reference = ReferenceNCF(model.config, 6, 9, 11).eval()
    reference.user, reference.movie = model.user, model.movie
    reference.mlp[0], reference.mlp[3], reference.mlp[5] = model.first, model.head[0], model.head[2]
    prediction = model.predict(BATCH)
    expected = 5 * reference(BATCH["user"], BATCH["movie"], model.features[BATCH["movie"]])
    torch.testing.assert_close(prediction, expected)
    output = model.train()(BATCH)
    torch.testing.assert_close(output.loss, ((prediction - BATCH["rating"]) / 5).square().mean())
    torch.testing.assert_close(output.prediction, prediction)
    assert output.n_samples == 4


@pytest.mark.parametrize("hidden_dims", [(6,), (5, 4, 3)])
def test_the_mlp_may_have_any_number_of_layers(hidden_dims):
    model = made(hidden_dims=hidden_dims)
    for row, prediction in enumerate(model.predict(BATCH)):
        u, i = BATCH["user"][row], BATCH["movie"][row]
        x = model.first(torch.cat([model.user.weight[u], model.movie.weight[i], model.features[i]]))
        for layer in [part for part in model.head if isinstance(part, torch.nn.Linear)]:
            x = layer(torch.relu(x))
        torch.testing.assert_close(prediction[None], 5 * torch.sigmoid(x))


def test_an_mlp_without_hidden_layers_is_refused():
    with pytest.raises(ValueError, match="--hidden-dims"):
        OriginalConfig(hidden_dims=())


@pytest.mark.parametrize("chunk", [4096, 2])
def test_scoring_the_catalogue_equals_predicting_pairs(chunk, monkeypatch):
    monkeypatch.setattr("Models.Original.CHUNK_MOVIES", chunk)
    model = made()
    scores = model.score(history_of(3, 0))
    assert scores.shape == (2, 9)
    pairs = {"user": torch.tensor([3] * 9 + [0] * 9), "movie": torch.arange(9).repeat(2)}
    torch.testing.assert_close(scores.flatten(), model.predict(pairs))


def test_gradients_of_a_large_batch_are_the_same_each_time(two_threads):
    """Large gathers use several threads: if they summed in an arbitrary order, two runs with one seed would differ."""
    model = made(stats=dataclasses.replace(STATS, n_users=3000, n_movies=2000), embedding_dim=32, hidden_dims=(128, 64))
    users, movies = torch.randint(0, 3000, (4096,)), torch.randint(0, 2000, (4096,))
    batch = {"user": users, "movie": movies, "rating": torch.ones(4096)}

    def gradients() -> list[torch.Tensor]:
        model.zero_grad()
        model(batch).loss.backward()
        return [parameter.grad.clone() for parameter in model.parameters()]

    first = gradients()
    for _ in range(10):
        assert all(torch.equal(one, other) for one, other in zip(first, gradients(), strict=True))


def test_the_vectors_are_the_embeddings():
    model = made()
    assert torch.equal(model.movie_vectors(), model.movie.weight)
    assert torch.equal(model.user_vectors(history_of(3, 0)), model.user.weight[[3, 0]])


def test_tables_are_the_parameters_with_a_row_for_each_user_or_movie():
    tables = made().tables()
    assert [len(one) for one in tables["user"]] == [6] and [len(one) for one in tables["movie"]] == [9]


def test_every_parameter_is_trained():
    model = made().train()
    model(BATCH).loss.backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in model.parameters())


# --- dropout -------------------------------------------------------------------------------------


@pytest.mark.parametrize("p", [0.0, 0.2, 0.75])
def test_dropout_drops_its_share_and_keeps_the_mean(p):
    torch.manual_seed(0)
    x = torch.ones(1000, 1003, requires_grad=True)
    dropped = Dropout(p).train()(x)
    assert float((dropped == 0).float().mean()) == pytest.approx(p, abs=0.002)
    torch.testing.assert_close(dropped[dropped > 0].unique(), torch.tensor([1 / (1 - p)]), atol=1e-4, rtol=1e-4)
    dropped.sum().backward()
    assert torch.equal(x.grad, dropped.detach())  # dropped values get no gradient, the rest a larger one
    by_column = (dropped == 0).float().mean(0)
    assert float(by_column.std()) == pytest.approx((p * (1 - p) / 1000) ** 0.5, rel=0.15, abs=1e-9)  # independent


def test_dropout_is_drawn_anew_and_repeats_with_the_seed():
    x, dropout = torch.ones(7, 3, 5), Dropout(0.5)
    torch.manual_seed(1)
    first, second = dropout(x), dropout(x)
    torch.manual_seed(1)
    assert torch.equal(dropout(x), first) and not torch.equal(first, second)
    assert torch.equal(dropout.eval()(x), x)
    assert Dropout(1 - 1e-9)(torch.ones(1000)).isfinite().all()
