"""The model: equal to its formula, whichever way it is computed; metrics against scikit-learn."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import mean_absolute_error, roc_auc_score, root_mean_squared_error

from Models.evaluate import auc_by_user, mae, rating_metrics, rmse
from Models.inputs import DataSizes, Known, prepared
from Models.Recommender import ModelConfig, Recommender
from resultAnalyze.plain import PlainRecommender

SIZES = DataSizes(n_users=6, n_movies=9, n_title=8, n_genres=3, mean_rating=3.5, low=1.0, high=5.0)
ORIGINAL = {"biases": False, "gmf": False, "unit_titles": False, "sigmoid": True, "l2": 0.0, "l2_bias": 0.0}


def known(features: torch.Tensor) -> Known:
    return dataclasses.replace(Known.blank(SIZES), features=features)


def made(**changes) -> Recommender:
    """A model with every parameter random."""
    torch.manual_seed(0)
    config = ModelConfig(**{"embedding": 5, "hidden": (7, 4), "dropout": 0.0} | changes)
    model = Recommender(config, SIZES, known(torch.randn(9, 11)))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    return model.eval()


BATCH = {
    "user": torch.tensor([0, 5, 5, 2]),
    "movie": torch.tensor([8, 1, 8, 0]),
    "rating": torch.tensor([4.0, 1.0, 5.0, 3.0]),
}


def test_original_equals_the_plain_concatenation():
    model = made(**ORIGINAL)
    plain = PlainRecommender(model.config, 6, 9, 11).eval()
    plain.user, plain.movie = model.user, model.movie
    plain.mlp[0], plain.mlp[3], plain.mlp[5] = model.first, model.head[0], model.head[2]
    stars = model(BATCH).stars
    expected = 5 * plain(BATCH["user"], BATCH["movie"], model.features[BATCH["movie"]])
    torch.testing.assert_close(stars, expected)
    torch.testing.assert_close(model.train()(BATCH)[1], ((stars - BATCH["rating"]) / 5).square().mean())


def test_default_equals_its_formula():
    model = made(l2=0.1, l2_bias=0.01)
    stars = model(BATCH).stars
    for k, (u, i) in enumerate(zip(BATCH["user"], BATCH["movie"], strict=True)):
        p, q, f = model.user.weight[u], model.movie.weight[i], model.features[i]
        from_f = model.feature_factors.weight @ f
        mlp = model.head(torch.relu(model.first(torch.cat([p, q, f]))))
        biases = model.user_bias.weight[u] + model.movie_bias.weight[i] + model.feature_bias.weight @ f
        torch.testing.assert_close(stars[k : k + 1], 3.5 + biases + p @ (q + from_f) + mlp)
    users, movies = BATCH["user"], BATCH["movie"]
    from_f = model.features[movies] @ model.feature_factors.weight.T
    factors = sum(part.square().sum(1) for part in (model.user.weight[users], model.movie.weight[movies], from_f))
    from_f = model.features[movies] @ model.feature_bias.weight.T
    biases = sum(
        part.square().sum(1) for part in (model.user_bias.weight[users], model.movie_bias.weight[movies], from_f)
    )
    errors, penalties = (stars - BATCH["rating"]).square(), 0.1 * factors + 0.01 * biases
    torch.testing.assert_close(model.train()(BATCH)[1], (errors + penalties).mean() / 25)


@pytest.mark.parametrize("changes", [{}, ORIGINAL, {"biases": False}, {"gmf": False}])
def test_scoring_the_catalogue_equals_scoring_pairs(changes):
    model = made(**changes)
    scores = model.score(torch.tensor([3, 0]))
    assert scores.shape == (2, 9)
    pairs = {"user": torch.tensor([3] * 9 + [0] * 9), "movie": torch.arange(9).repeat(2)}
    torch.testing.assert_close(scores.flatten(), model(pairs)[0])


def test_gradients_of_a_large_batch_are_the_same_each_time():
    """Large gathers run on several threads: added up in any order, two trainings with one seed would differ."""
    sizes = dataclasses.replace(SIZES, n_users=3000, n_movies=2000)
    torch.manual_seed(0)
    model = Recommender(ModelConfig(dropout=0.0), sizes, known(torch.randn(2000, 11)))
    batch = {
        "user": torch.randint(0, 3000, (4096,)),
        "movie": torch.randint(0, 2000, (4096,)),
        "rating": torch.ones(4096),
    }

    def gradients() -> list[torch.Tensor]:
        model.zero_grad()
        model(batch)[1].backward()
        return [parameter.grad.clone() for parameter in model.parameters()]

    first = gradients()
    for _ in range(10):
        assert all(torch.equal(one, other) for one, other in zip(first, gradients(), strict=True))


@pytest.mark.parametrize("changes", [{}, ORIGINAL])
def test_every_parameter_is_trained(changes):
    model = made(**changes).train()
    model(BATCH)[1].backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in model.parameters())


def test_unit_titles_leave_genres_alone():
    features = torch.randn(20, 11)
    titles, genres = prepared(features, ModelConfig(), SIZES).tensor_split([8], dim=1)
    torch.testing.assert_close(titles.norm(dim=1), torch.ones(20))
    torch.testing.assert_close(genres, features[:, 8:])


def outputs(seed: int = 0, **changes) -> tuple[Recommender, torch.Tensor, torch.Tensor]:
    """A model whose inputs are switched, its titles and genres, and its scores."""
    torch.manual_seed(seed)
    features = torch.randn(9, 11)
    model = Recommender(ModelConfig(embedding=5, hidden=(7, 4), dropout=0.0, **changes), SIZES, known(features))
    torch.nn.init.normal_(model.feature_factors.weight)
    return model, features, model.score(torch.arange(6))


@pytest.mark.parametrize(("changes", "columns"), [({"titles": "none"}, slice(8)), ({"genres": False}, slice(8, 11))])
def test_an_input_that_is_off_changes_nothing(changes, columns):
    model, features, scores = outputs(**changes)
    features[:, columns] += 1 + torch.randn_like(features[:, columns])
    model.features = prepared(features, model.config, SIZES)
    torch.testing.assert_close(model.score(torch.arange(6)), scores)
    model.features = prepared(features.flip(1), model.config, SIZES)
    assert not torch.allclose(model.score(torch.arange(6)), scores)


def test_without_ids_only_features_tell_movies_apart():
    model, features, scores = outputs(ids=False)
    assert (scores.std(dim=1) > 0.01).all()
    model.features = prepared(features[:1].expand(9, -1), model.config, SIZES)
    scores = model.score(torch.arange(6))
    torch.testing.assert_close(scores, scores[:, :1].expand(-1, 9))
    model.train()(BATCH)[1].backward()
    assert model.movie.weight.grad is None and model.movie_bias.weight.grad is None


def test_shuffled_titles_are_the_titles_of_other_movies():
    model, features, _ = outputs(titles="shuffled")
    own = prepared(features, dataclasses.replace(model.config, titles="own"), SIZES)
    rows = {tuple(row) for row in own[:, :8].tolist()}
    assert {tuple(row) for row in model.features[:, :8].tolist()} == rows and len(rows) == 9
    assert not torch.equal(model.features[:, :8], own[:, :8])
    torch.testing.assert_close(model.features[:, 8:], own[:, 8:])


stars = arrays(np.float32, st.shared(st.integers(1, 30), key="n"), elements=st.floats(0.5, 5, width=32))


@given(prediction=stars, rating=stars)
def test_metrics_are_scikit_learn_s(prediction, rating):
    both = torch.from_numpy(prediction), torch.from_numpy(rating)
    assert rmse(*both) == pytest.approx(root_mean_squared_error(rating, prediction), abs=1e-5)
    assert mae(*both) == pytest.approx(mean_absolute_error(rating, prediction), abs=1e-5)
    assert mae(*both) <= rmse(*both) + 1e-9
    order = torch.randperm(len(rating))
    assert rmse(both[0][order], both[1][order]) == pytest.approx(rmse(*both))


@given(st.data())
def test_auc_is_scikit_learn_s_for_each_user(data):
    n = data.draw(st.integers(1, 40))
    user = np.array(data.draw(st.lists(st.integers(0, 4), min_size=n, max_size=n)))
    score = np.array(data.draw(st.lists(st.integers(1, 5), min_size=n, max_size=n)), float)  # with ties
    liked = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    both = [u for u in np.unique(user) if 0 < liked[user == u].sum() < (user == u).sum()]
    expected = [roc_auc_score(liked[user == u], score[user == u]) for u in both]
    np.testing.assert_allclose(auc_by_user(user, score, liked), expected)


def test_metrics_by_hand():
    found = rating_metrics(torch.tensor([3.0, 5.0]), torch.tensor([4.0, 2.0]), high=5.0)
    assert found == pytest.approx({"loss": 5 / 25, "rmse": 5**0.5, "mae": 2.0})
