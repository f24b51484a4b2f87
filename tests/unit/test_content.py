"""The content model: its formula by plain loops, movies treated as new in training, and what it learns of blocks."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from helpers import RATIOS, batch_of, one_history, random_model
from scipy.sparse.linalg import eigsh

from Models.Content import Content, ContentConfig, similarities
from Models.EASE import item_weights
from Models.features import FeatureConfig
from Models.inputs import ModelInputs, UnsuitableData
from Models.ratings_data import model_inputs, split_rows
from utils.columns import Block, multi_hot

CAST = [("a",), ("a", "b"), ("b",), ()] * 6 + [("c",), ("c", "a"), ()]


@pytest.fixture(scope="module")
def known(data):
    """The small data set with a cast and a runtime."""
    cast = Block("cast", "names", multi_hot(CAST, "abc"), ("a", "b", "c"))
    runtime = Block("runtime", "number", np.array([np.nan, *range(80, 106)], np.float32)[:, None])
    return dataclasses.replace(data, features=dataclasses.replace(data.features, columns=(cast, runtime)))


@pytest.fixture(scope="module")
def train(known):
    return split_rows(known, "cold-movies", RATIOS).train


def made(data, rows, **config) -> Content:
    return random_model(data, rows, ContentConfig(**config))


def test_similarities_by_hand(known, train):
    stats, inputs = model_inputs(known, train, FeatureConfig())
    found = similarities(stats, inputs)
    assert list(found) == ["title", "genres", "runtime", "year", "cast"]
    titles, genres = inputs.features[:, :8].double(), inputs.features[:, 8:12].double()
    rare = [math.log(27 / max(1.0, float(genres[:, k].sum()))) for k in range(4)]
    idf = [math.log(27 / sum(word in words for words in CAST)) for word in "abc"]
    for i, j in ((0, 1), (3, 17), (24, 25), (26, 4)):
        cosine = float(titles[i] @ titles[j] / titles[i].norm() / titles[j].norm())
        assert found["title"][i, j] == pytest.approx(max(cosine, 0) ** 2, abs=1e-4)
        one, other = (np.array([float(genres[m, k]) * rare[k] for k in range(4)]) for m in (i, j))
        length = np.linalg.norm(one) * np.linalg.norm(other)
        assert found["genres"][i, j] == pytest.approx(one @ other / length if length else 0, abs=1e-4)
        one, other = (np.array([w * (word in CAST[m]) for word, w in zip("abc", idf, strict=True)]) for m in (i, j))
        length = np.linalg.norm(one) * np.linalg.norm(other)
        assert found["cast"][i, j] == pytest.approx(one @ other / length if length else 0, abs=1e-4)
        apart = abs(float(inputs.year[i] - inputs.year[j]))
        both = inputs.year[i] > 0 and inputs.year[j] > 0
        assert found["year"][i, j] == pytest.approx(math.exp(-apart / 5) if both else 0, abs=1e-4)
    assert not found["runtime"][0].any() and found["runtime"][3, 4] > found["runtime"][3, 9] > 0
    assert not any(one.diagonal().any() for one in found.values())


def test_scores_equal_the_formula(known, train):
    model = made(known, train, new_penalty=0.7)
    stats, inputs = model_inputs(known, train, FeatureConfig())
    value = {name: part.detach().double() for name, part in model.named_parameters()}
    blocks = {name: one.double() for name, one in similarities(stats, inputs).items()}
    scores = model.score(one_history(3, 5, 7, rating=[1.0, 3.0, 5.0]))[0]
    ease = item_weights(
        known.select(train).matrix(weights_of(known, train)), content=100 * gram(inputs, stats)
    ).double()
    rated = set(known.movie[train].tolist())
    assert len(rated) < 20
    for i in range(27):
        alike = sum(
            math.exp(a) * float(block[j, i]) / float(block.sum()) * 27 * float(value["weight_steps"][step]) / 3
            for a, block in zip(value["log_share"].tolist(), blocks.values(), strict=True)
            for j, step in ((3, 0), (5, 2), (7, 4))
        )
        as_new = float(value["exponent"]) * math.log(max(alike, 0) + 0.01)
        as_new += float(value["of_popularity"]) * float(inputs.features[i, -1])
        near = sum(weight * float(ease[j, i]) for j, weight in ((3, 0.05), (5, 0.4), (7, 1.0)))
        content, of_ease, shift = value["of_known"].tolist()
        of_known = content * as_new + of_ease * math.log(max(near, 0) + 0.1) + shift
        expected = of_known if i in rated else as_new - 0.7
        assert float(scores[i]) == pytest.approx(expected, abs=1e-3), i


def weights_of(data, rows) -> np.ndarray:
    return np.array([(0.05, 0.15, 0.4, 0.8, 1.0)[int(rating) - 1] for rating in data.rating[rows]])


def gram(inputs: ModelInputs, stats) -> torch.Tensor:
    """Texts, genres and decades count as users and names as a tenth of one; numbers and popularity do not count."""
    dense = torch.cat([inputs.features[:, :12], inputs.block("year", stats)], 1).double()
    names = inputs.names[0].to_dense().double()
    return dense @ dense.T + 0.1 * names @ names.T


def test_in_training_a_user_is_not_in_their_own_ease(known, train):
    """Their scores change only with the ratings of the other half: for an even user number, the odd ones."""
    model = made(known, train).train()
    history, everything = known.history(train).pad(torch.tensor([4])), torch.ones(27).bool()
    before = model.logits(history, everything)
    for numbers, same in ((0, True), (1, False)):
        rating = known.rating.copy()
        rating[(known.user % 2 == numbers) & (known.user != 4)] = 5
        other = made(dataclasses.replace(known, rating=rating), train).train()
        assert torch.allclose(other.logits(history, everything), before, atol=1e-4) == same


def test_new_movies_are_scored_by_what_they_are(known, train):
    """Two movies of the same title, genres, year and cast, neither of them rated, get the same score."""
    new = sorted(set(range(27)) - set(known.movie[train].tolist()))[:2]
    blocks = [dataclasses.replace(block, values=alike(block.values, *new)) for block in known.features.blocks()]
    title, genres, *columns = blocks
    vectors = np.hstack([title.values, genres.values.toarray()])
    features = dataclasses.replace(known.features, vectors=vectors, columns=tuple(columns))
    movies = known.movies.copy()
    movies["year"] = alike(movies["year"].to_numpy(), *new)
    model = made(dataclasses.replace(known, features=features, movies=movies), train)
    scores = model.score(one_history(*known.movie[train][:4].tolist()))[0]
    torch.testing.assert_close(scores[new[0]], scores[new[1]], atol=1e-3, rtol=1e-3)
    others = [i for i in range(27) if i not in new]
    assert (scores[others] - scores[new[0]]).abs().min() > 0


def alike(values, one: int, other: int):
    """The rows of two movies, made equal."""
    values = values.copy() if isinstance(values, np.ndarray) else values.tolil()
    values[other] = values[one]
    return values if isinstance(values, np.ndarray) else values.tocsr()


def test_every_parameter_is_trained(known, train):
    model = made(known, train).train()
    torch.manual_seed(1)
    model(batch_of(known, known.by_user_and_time(train))).loss.backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.parameters())


def test_vectors_multiply_to_the_positive_part_of_the_similarity_of_all_blocks(known, train):
    model = made(known, train)
    vectors = model.movie_vectors()
    values, directions = torch.linalg.eigh(torch.tensordot(model.log_share.exp(), model.similarity, 1))
    expected = directions * values.clamp(min=0) @ directions.T
    torch.testing.assert_close(vectors @ vectors.T, expected, atol=1e-3, rtol=1e-3)


def test_vectors_are_found_once_until_it_trains_on(known, train, monkeypatch):
    model, calls = made(known, train).eval(), []
    monkeypatch.setattr("Models.Content.eigsh", lambda *a, **k: calls.append(1) or eigsh(*a, **k))
    for user in range(3):
        model.user_vectors(known.history(train).pad(torch.tensor([user])))
    assert len(calls) == 1
    before = model.movie_vectors()
    with torch.no_grad():
        model.train().log_share.add_(1.0)
    assert not torch.allclose(model.eval().movie_vectors(), before)


def test_the_shuffled_year_is_another_one(known, train):
    """The nearness of years reads the years themselves, not the block."""
    torch.manual_seed(0)
    (_, whole), (_, shuffled) = (model_inputs(known, train, FeatureConfig(shuffled=names)) for names in ((), ("year",)))
    assert not whole.year.equal(shuffled.year) and whole.year.sort().values.equal(shuffled.year.sort().values)


def test_what_it_can_not_do_is_said(known, train):
    stats, inputs = model_inputs(known, train, FeatureConfig())
    with pytest.raises(UnsuitableData, match="20,000 movies: take --preset ncf-ranking"):
        Content(ContentConfig(), dataclasses.replace(stats, n_movies=20_000), inputs)
    with pytest.raises(UnsuitableData, match="needs features of the movies: name some with --blocks"):
        Content(ContentConfig(), *model_inputs(known, train, FeatureConfig(blocks=())))
