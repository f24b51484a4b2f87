"""The original NCF and the one that ranks: equal to their formula, however computed; the sampled softmax by hand."""

import dataclasses

import numpy as np
import pytest
import torch
from helpers import batch_of, cross_entropy, one_history, random_model
from hypothesis import given, settings
from hypothesis import strategies as st

from Models.inputs import (
    DataStats,
    FeatureBlock,
    FeatureConfig,
    ModelInputs,
    RatingScale,
    UnsuitableData,
    prepare_features,
)
from Models.Recommender import OriginalConfig, OriginalRecommender, draw_negatives
from Models.sequences import NEW_USER, PaddedHistory
from resultAnalyze.references import ReferenceNCF

BLOCKS = (FeatureBlock("title", 8), FeatureBlock("genres", 3))
STATS = DataStats(n_users=6, n_movies=9, blocks=BLOCKS, mean_rating=3.5, scale=RatingScale(1.0, 5.0))
ORIGINAL = {"biases": False, "gmf": False, "sigmoid": True, "l2": 0.0, "l2_bias": 0.0}
BATCH = {
    "user": torch.tensor([0, 5, 5, 2]),
    "movie": torch.tensor([8, 1, 8, 0]),
    "rating": torch.tensor([4.0, 1.0, 5.0, 3.0]),
}


def inputs_of(features: torch.Tensor, user: list[int] | None = None, movie: list[int] | None = None) -> ModelInputs:
    """What a model is given: these features, and perhaps some ratings."""
    nothing = torch.empty(0, dtype=torch.int64)
    user, movie = (nothing if one is None else torch.tensor(one) for one in (user, movie))
    n = len(features)
    return ModelInputs(features, torch.zeros(n), torch.zeros(6, 0), user, movie, torch.ones(len(user)), user * 0)


def made(stats: DataStats = STATS, inputs: ModelInputs | None = None, **changes) -> OriginalRecommender:
    """A model with every parameter random."""
    torch.manual_seed(0)
    config = OriginalConfig(**{"embedding_dim": 5, "hidden_dims": (7, 4), "dropout": 0.0} | changes)
    model = OriginalRecommender(config, stats, inputs or inputs_of(torch.randn(9, 11)))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    return model.eval()


def history_of(*users: int) -> PaddedHistory:
    """Users of the data whose ratings do not matter."""
    n = len(users)
    empty = torch.zeros(n, 1, dtype=torch.int64)
    return PaddedHistory(torch.tensor(users), empty, empty.float(), empty, empty.bool())


@pytest.fixture
def two_threads():
    """Tests have one thread, users have several."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


# --- the formula ---------------------------------------------------------------------------------


def test_the_original_preset_equals_the_plain_concatenation():
    model = made(**ORIGINAL)
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


@pytest.mark.parametrize("hidden_dims", [(7, 4), (6,), (5, 4, 3)])
def test_predictions_and_loss_equal_their_formula(hidden_dims):
    model = made(l2=0.1, l2_bias=0.01, hidden_dims=hidden_dims)
    prediction = model.predict(BATCH)
    for k, (u, i) in enumerate(zip(BATCH["user"], BATCH["movie"], strict=True)):
        p, q, f = model.user.weight[u], model.movie.weight[i], model.features[i]
        from_f = model.feature_factors.weight @ f
        mlp = model.head(torch.relu(model.first(torch.cat([p, q, f]))))
        biases = model.user_bias.weight[u] + model.movie_bias.weight[i] + model.feature_bias.weight @ f
        torch.testing.assert_close(prediction[k : k + 1], 3.5 + biases + p @ (q + from_f) + mlp)
    users, movies = BATCH["user"], BATCH["movie"]
    from_f = model.features[movies] @ model.feature_factors.weight.T
    factors = sum(part.square().sum(1) for part in (model.user.weight[users], model.movie.weight[movies], from_f))
    from_f = model.features[movies] @ model.feature_bias.weight.T
    biases = sum(
        part.square().sum(1) for part in (model.user_bias.weight[users], model.movie_bias.weight[movies], from_f)
    )
    errors, penalties = (prediction - BATCH["rating"]).square(), 0.1 * factors + 0.01 * biases
    torch.testing.assert_close(model.train()(BATCH).loss, (errors + penalties).mean() / 25)


def test_an_mlp_without_hidden_layers_is_refused():
    with pytest.raises(ValueError, match="--hidden-dims"):
        OriginalConfig(hidden_dims=())


@pytest.mark.parametrize("changes", [{}, ORIGINAL, {"biases": False}, {"gmf": False}])
@pytest.mark.parametrize("chunk", [4096, 2])
def test_scoring_the_catalogue_equals_predicting_pairs(changes, chunk, monkeypatch):
    monkeypatch.setattr("Models.Recommender.CHUNK_MOVIES", chunk)
    model = made(**changes)
    scores = model.score(history_of(3, 0))
    assert scores.shape == (2, 9)
    pairs = {"user": torch.tensor([3] * 9 + [0] * 9), "movie": torch.arange(9).repeat(2)}
    torch.testing.assert_close(scores.flatten(), model.predict(pairs))


def test_gradients_of_a_large_batch_are_the_same_each_time(two_threads):
    """Large gathers run on several threads: added up in any order, two trainings with one seed would differ."""
    stats = dataclasses.replace(STATS, n_users=3000, n_movies=2000)
    torch.manual_seed(0)
    model = OriginalRecommender(OriginalConfig(dropout=0.0), stats, inputs_of(torch.randn(2000, 11)))
    batch = {
        "user": torch.randint(0, 3000, (4096,)),
        "movie": torch.randint(0, 2000, (4096,)),
        "rating": torch.ones(4096),
    }

    def gradients() -> list[torch.Tensor]:
        model.zero_grad()
        model(batch).loss.backward()
        return [parameter.grad.clone() for parameter in model.parameters()]

    first = gradients()
    for _ in range(10):
        assert all(torch.equal(one, other) for one, other in zip(first, gradients(), strict=True))


def test_the_vectors_are_those_of_the_product_or_the_embeddings():
    model, plain = made(), made(**ORIGINAL)
    from_features = model.features @ model.feature_factors.weight.T
    torch.testing.assert_close(model.movie_vectors(), model.movie.weight + from_features)
    torch.testing.assert_close(plain.movie_vectors(), plain.movie.weight)
    assert torch.equal(model.user_vectors(history_of(3, 0)), model.user.weight[[3, 0]])


def test_tables_are_the_parameters_with_a_row_for_each_user_or_movie():
    for model, n in ((made(), 2), (made(**ORIGINAL), 1)):
        tables = model.tables()
        assert [len(one) for one in tables["user"]] == [6] * n and [len(one) for one in tables["movie"]] == [9] * n


@pytest.mark.parametrize("changes", [{}, ORIGINAL])
def test_every_parameter_is_trained(changes):
    model = made(**changes).train()
    model(BATCH).loss.backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in model.parameters())


# --- features ------------------------------------------------------------------------------------


def test_unit_titles_have_length_1_and_genres_stay():
    features = torch.randn(20, 11)
    titles, genres = prepare_features(features, BLOCKS, FeatureConfig()).tensor_split([8], dim=1)
    torch.testing.assert_close(titles.norm(dim=1), torch.ones(20))
    centred = features[:, :8] - features[:, :8].mean(0)
    torch.testing.assert_close(titles, centred / centred.norm(dim=1, keepdim=True))
    torch.testing.assert_close(genres, features[:, 8:])
    raw = prepare_features(features, BLOCKS, FeatureConfig(unit_titles=False))
    torch.testing.assert_close(raw, features)


def with_features(config: FeatureConfig, **changes) -> tuple[OriginalRecommender, torch.Tensor, torch.Tensor]:
    """A model with these inputs, the features that it was made from, and its scores."""
    torch.manual_seed(0)
    features = torch.randn(9, 11)
    ncf = OriginalConfig(embedding_dim=5, hidden_dims=(7, 4), dropout=0.0, **changes)
    model = OriginalRecommender(ncf, STATS, inputs_of(prepare_features(features, BLOCKS, config)))
    torch.nn.init.normal_(model.feature_factors.weight)
    return model, features, model.score(history_of(*range(6)))


@pytest.mark.parametrize(
    ("config", "columns"),
    [(FeatureConfig(titles="none"), slice(8)), (FeatureConfig(genres=False), slice(8, 11))],
    ids=["titles", "genres"],
)
def test_a_feature_that_is_off_changes_nothing(config, columns):
    model, features, scores = with_features(config)
    features[:, columns] += 1 + torch.randn_like(features[:, columns])
    model.features = prepare_features(features, BLOCKS, config)
    torch.testing.assert_close(model.score(history_of(*range(6))), scores)
    model.features = prepare_features(features.flip(1), BLOCKS, config)
    assert not torch.allclose(model.score(history_of(*range(6))), scores)


def test_without_ids_only_features_tell_movies_apart():
    model, features, scores = with_features(FeatureConfig(), ids=False)
    assert (scores.std(dim=1) > 0.01).all()
    model.features = prepare_features(features[:1].expand(9, -1), BLOCKS, FeatureConfig())
    scores = model.score(history_of(*range(6)))
    torch.testing.assert_close(scores, scores[:, :1].expand(-1, 9))
    model.train()(BATCH).loss.backward()
    assert model.movie.weight.grad is None and model.movie_bias.weight.grad is None


def test_shuffled_titles_are_the_titles_of_other_movies():
    model, features, _ = with_features(FeatureConfig(titles="shuffled"))
    own = prepare_features(features, BLOCKS, FeatureConfig())
    rows = {tuple(row) for row in own[:, :8].tolist()}
    assert {tuple(row) for row in model.features[:, :8].tolist()} == rows and len(rows) == 9
    assert not torch.equal(model.features[:, :8], own[:, :8])
    torch.testing.assert_close(model.features[:, 8:], own[:, 8:])


# --- new users -----------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{}, {"biases": False}, {"gmf": False}])
def test_the_embedding_fitted_for_a_new_user_fits_their_ratings(changes):
    """Better than that of a user of whom nothing is known."""
    model = made(l2=0.01, l2_bias=0.01, **changes)
    ratings = [5.0, 1.0] * 3
    known = one_history(*range(6), rating=ratings)
    nothing = dataclasses.replace(known, mask=torch.zeros(1, 6).bool())
    fitted, average = (model.score(one)[0, :6] for one in (known, nothing))
    error, average_error = ((scores - torch.tensor(ratings)).square().mean() for scores in (fitted, average))
    assert error < average_error


def test_fitting_a_new_user_leaves_the_model_as_it_was():
    model = made()
    before = {name: part.clone() for name, part in model.state_dict().items()}
    with torch.inference_mode():
        model.score(one_history(1, 2, rating=[1.0, 5.0]))
    assert all(torch.equal(part, before[name]) for name, part in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_padding_does_not_change_a_new_user():
    model = made()
    alone = model.score(one_history(1, 2, rating=[1.0, 5.0]))
    columns = {"movie": [[1, 2, 7, 7], [0, 3, 4, 5]], "rating": [[1.0, 5.0, 3.0, 3.0], [2.0, 2.0, 5.0, 5.0]]}
    movie, rating = torch.tensor(columns["movie"]), torch.tensor(columns["rating"])
    mask = torch.tensor([[True, True, False, False], [True] * 4])
    together = model.score(PaddedHistory(torch.tensor([NEW_USER] * 2), movie, rating, movie * 0, mask))
    torch.testing.assert_close(together[:1], alone, atol=1e-3, rtol=1e-3)


# --- negatives and the sampled softmax -----------------------------------------------------------


@settings(deadline=None, max_examples=50)
@given(st.data())
def test_negatives_are_unrated_and_different(draw):
    """As many as the user with the most ratings has unrated movies: then all of these are drawn."""
    n_movies = draw.draw(st.integers(2, 12))
    some = st.sets(st.integers(0, n_movies - 1), min_size=1, max_size=n_movies - 1)
    rated = draw.draw(st.lists(some, min_size=1, max_size=4))
    keys = torch.tensor(sorted(user * n_movies + movie for user, movies in enumerate(rated) for movie in movies))
    n = min(n_movies - len(movies) for movies in rated)
    users = torch.arange(len(rated)).repeat(40)
    negatives = draw_negatives(users, keys, n_movies, n)
    for user, row in zip(users.tolist(), negatives.tolist(), strict=True):
        assert len(set(row)) == n and not set(row) & rated[user]


def test_negatives_are_uniform():
    torch.manual_seed(0)
    drawn = draw_negatives(torch.zeros(4000, dtype=torch.int64), torch.tensor([1, 3]), 6, 2)
    share = torch.bincount(drawn.flatten(), minlength=6) / drawn.numel()
    assert share.tolist() == pytest.approx([0.25, 0, 0.25, 0, 0.25, 0.25], abs=0.02)


def test_more_negatives_than_unrated_movies_are_refused():
    inputs = inputs_of(torch.randn(9, 11), user=[0, 0, 0, 1], movie=[0, 1, 2, 5])
    made(inputs=inputs, num_negatives=6)
    with pytest.raises(UnsuitableData, match="only 6 unrated movies: lower --num-negatives"):
        made(inputs=inputs, num_negatives=7)


def test_the_sampled_softmax_by_hand(data):
    """With as many negatives as the user has unrated movies, none is left to chance."""
    rows = np.flatnonzero(data.user == 2)
    unrated = sorted(set(range(27)) - set(data.movie[rows].tolist()))
    shape = {"embedding_dim": 4, "hidden_dims": (8, 4), "dropout": 0, "l2": 0, "l2_bias": 0}
    model = random_model(data, rows, OriginalConfig(num_negatives=len(unrated), **shape), std=0.5).train()
    batch = batch_of(data, rows)
    scores = model.score(history_of(2))[0]
    expected = [cross_entropy(scores, movie, unrated) for movie in batch["movie"].tolist()]
    output = model(batch)
    torch.testing.assert_close(output.loss, torch.stack(expected).mean())
    assert output.prediction is None and output.n_samples == len(rows)


def test_the_penalty_of_a_ranking_is_that_of_users_and_all_drawn_movies(data):
    rows = np.flatnonzero(data.user == 2)
    unrated = sorted(set(range(27)) - set(data.movie[rows].tolist()))
    shape = {"embedding_dim": 4, "hidden_dims": (8, 4), "dropout": 0, "num_negatives": len(unrated)}
    plain, penalised = (
        random_model(data, rows, OriginalConfig(**shape, l2=l2, l2_bias=l2_bias), std=0.5).train()
        for l2, l2_bias in ((0.0, 0.0), (0.1, 0.01))
    )
    batch = batch_of(data, rows)
    user = penalised.user_tower(torch.tensor([2]))["penalty"]
    drawn = torch.tensor([[movie, *unrated] for movie in batch["movie"].tolist()])
    penalty = user + penalised.item_tower(torch.arange(27))["penalty"][drawn]
    torch.testing.assert_close(penalised(batch).loss - plain(batch).loss, penalty.mean())
    assert penalty.mean() > 0.01
