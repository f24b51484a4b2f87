"""Recommendations: the best unrated movies by the scores of the model, for users of the data and new ones; vectors."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from helpers import SMALL, one_history, tiny_ratings, train_here

from Models.checkpoint import SavedModel, load_model
from Models.Dataset import Model, RowBatches
from Models.inference.named import allowed_movies, find_users
from Models.inference.recommend import TopNRecommender, audience, scores_of_known, similar, vectors
from Models.sequences import PaddedHistory

CPU = torch.device("cpu")
IDS = [*range(2, 177, 7), 900, 901]
RATED = {user: {row[1] for row in tiny_ratings() if row[0] == user} for user in range(1, 90, 3)}


@pytest.fixture(scope="module", params=["history", "ncf", "ncf-ranking", "gru", "autoencoder"])
def any_model(request, places, tmp_path_factory) -> SavedModel:
    """A trained model of each kind."""
    run = tmp_path_factory.mktemp(request.param) / "run"
    train_here(*places, "--run", run, "--preset", request.param, "--epochs", 2, *SMALL[request.param])
    return load_model(run / "best.pt", CPU)


def recommended(saved: SavedModel, user: str, top_n: int, **settings) -> list[int]:
    """Ids of the movies recommended to one user from all ratings."""
    recommender = TopNRecommender(saved.model, saved.ids, top_n, **settings)
    history = saved.ratings.history
    (found,) = recommender.for_users(find_users(saved.ids, [user]), known=history, seen=history)
    return [movie.id for movie in found.movies]


# --- users of the data ---------------------------------------------------------------------------


def test_recommendations_are_the_best_unrated_movies(saved):
    for user in RATED:
        index = torch.tensor(find_users(saved.ids, [str(user)]))
        scores = saved.model.score(saved.ratings.history.pad(index))[0].tolist()
        by_hand = sorted(zip(saved.ids.movie_ids, scores, strict=True), key=lambda pair: -pair[1])
        assert recommended(saved, str(user), 5) == [movie for movie, _ in by_hand if movie not in RATED[user]][:5]


def test_never_rated_movies_can_be_recommended(saved):
    assert {900, 901} <= set(recommended(saved, "1", 27))


def test_as_many_movies_as_are_left_are_recommended(saved):
    movies = recommended(saved, "4", 100)
    assert len(movies) == len(set(movies)) == 27 - 12 and not set(movies) & RATED[4]


def test_recommendations_come_from_the_known_ratings_and_hold_no_seen_movie(any_model):
    """Scored from all ratings, or from the training ones; in both cases without any movie that was rated."""
    every, training = any_model.ratings.history, any_model.ratings.training()
    recommender = TopNRecommender(any_model.model, any_model.ids, 5)
    for known in (every, training):
        for index, found in enumerate(recommender.for_users(range(30), known, seen=every)):
            with torch.no_grad():
                scores = any_model.model.score(known.pad(torch.tensor([index])))[0]
            scores[every.pad(torch.tensor([index])).movie[0]] = -torch.inf
            best = scores.sort(descending=True, stable=True)
            names = [any_model.ids.movie_ids[i] for i in best.indices[:5].tolist()]
            assert found.id == any_model.ids.user_ids[index] and [movie.id for movie in found.movies] == names
            name = "score" if any_model.model.config.task == "ranking" else "prediction"
            expected = best.values[:5] if name == "score" else best.values[:5].clamp(1, 5)
            assert [movie.values[name] for movie in found.movies] == pytest.approx(expected.tolist(), abs=1e-4)


def test_more_known_ratings_change_the_recommendations_of_models_of_histories(any_model):
    every, training = any_model.ratings.history, any_model.ratings.training()
    users = torch.arange(30)
    with torch.no_grad():
        scores = [any_model.model.score(known.pad(users)) for known in (every, training)]
    assert not torch.equal(*scores)


@pytest.mark.parametrize("cells", [60, 10_000_000])
def test_chunks_do_not_change_the_recommendations(saved, monkeypatch, cells):
    """Two users at a time, or all at once."""
    monkeypatch.setattr("Models.inference.recommend.CHUNK_CELLS", cells)
    history = saved.ratings.history
    recommender = TopNRecommender(saved.model, saved.ids, 4)
    found = list(recommender.for_users(range(30), history, history))
    assert [one.id for one in found] == saved.ids.user_ids
    assert [[movie.id for movie in one.movies] for one in found] == [
        recommended(saved, str(user), 4) for user in saved.ids.user_ids
    ]


def test_of_a_large_catalogue_the_movies_with_the_best_rough_scores_are_scored(places, tmp_path, monkeypatch):
    """The list is the best of these by exact scores; movies that a user has rated take no place among them."""
    saved = load_model(train_here(*places, "--run", tmp_path / "run", "--epochs", 1) / "best.pt", CPU)
    known = saved.ratings.history.pad(torch.arange(30))
    recommender = TopNRecommender(saved.model, saved.ids, 3)
    rough = recommender.leave_out(saved.model.rough_score(known).detach().clone(), known)
    exact = recommender.leave_out(saved.model.score(known).detach().clone(), known)
    monkeypatch.setattr("Models.inference.recommend.SHORTLIST", 6)
    found = recommender.for_histories(known, known)
    for k, one in enumerate(found):
        kept = rough[k].topk(6).indices
        best = kept[exact[k, kept].argsort(descending=True)][:3].tolist()
        assert [movie.id for movie in one.movies] == [saved.ids.movie_ids[movie] for movie in best]
        values = [movie.values["prediction"] for movie in one.movies]
        assert values == pytest.approx(recommender.clipped(exact[k, best], saved.model).tolist(), abs=1e-5)


class Constant(Model):
    """A model that predicts 7 for everything."""

    batching = RowBatches()

    def __init__(self, model: torch.nn.Module):
        super().__init__()
        self.stats, self.config, self.weight = model.stats, model.config, torch.nn.Parameter(torch.zeros(1))

    def score(self, history: PaddedHistory) -> torch.Tensor:
        return torch.full((len(history.user), 27), 7.0)


def test_ties_stand_in_catalogue_order_and_the_scale_bounds_what_is_shown(saved):
    recommender = TopNRecommender(Constant(saved.model), saved.ids, 3, include_seen=True)
    (found,) = recommender.for_users([0], saved.ratings.history, saved.ratings.history)
    assert [movie.id for movie in found.movies] == saved.ids.movie_ids[:3]
    assert [movie.values["prediction"] for movie in found.movies] == [5.0] * 3


def test_titles_and_genres_belong_to_the_movies(saved):
    recommender = TopNRecommender(saved.model, saved.ids, 27, include_seen=True)
    (found,) = recommender.for_users([0], saved.ratings.history, saved.ratings.history)
    movies = {movie.id: movie for movie in found.movies}
    assert movies[163].title == "Misérables, Les (1995)" and movies[163].genres == "Drama|Musical"
    assert movies[170].genres == "" and len(movies) == 27


# --- seen movies ---------------------------------------------------------------------------------


def test_a_seen_movie_is_scored_from_the_other_ratings(any_model):
    """Each score equals that of a history without that rating, computed alone."""
    history = any_model.ratings.history.pad(torch.tensor([5, 2])).row(0)
    with torch.no_grad():
        found = scores_of_known(any_model.model, history)
        for k in range(12):
            others = [i for i in range(12) if i != k]
            columns = (column[:, others] for column in (history.movie, history.rating, history.time, history.mask))
            alone = any_model.model.score(PaddedHistory(history.user, *columns, history.request_time))
            torch.testing.assert_close(found[k], alone[0, history.movie[0, k]], atol=1e-4, rtol=1e-4)


def test_without_ratings_there_are_no_seen_movies_to_score(saved):
    empty = dataclasses.replace(one_history(3), mask=torch.zeros(1, 1).bool())
    assert scores_of_known(saved.model, empty).shape == (0,)


def test_with_seen_movies_included_each_has_its_score_from_the_others(any_model):
    every = any_model.ratings.history
    recommender = TopNRecommender(any_model.model, any_model.ids, 27, include_seen=True)
    (found,) = recommender.for_users([5], every, every)
    history = every.pad(torch.tensor([5]))
    with torch.no_grad():
        scores = any_model.model.score(history)[0]
        scores[history.movie[0]] = scores_of_known(any_model.model, history)
    order = scores.sort(descending=True, stable=True).indices.tolist()
    assert [movie.id for movie in found.movies] == [any_model.ids.movie_ids[i] for i in order]


# --- predictions beside a ranking ----------------------------------------------------------------


def test_predictions_stand_beside_a_ranking(any_model, saved):
    """The order is that of the ranking, the predictions are those of the other model."""
    history = saved.ratings.history
    alone, both = (
        list(TopNRecommender(any_model.model, any_model.ids, 4, rating_model=m).for_users(range(30), history, history))
        for m in (None, saved.model)
    )
    for index, (one, other) in enumerate(zip(alone, both, strict=True)):
        assert [movie.id for movie in one.movies] == [movie.id for movie in other.movies]
        predictions = saved.model.score(history.pad(torch.tensor([index])))[0].clamp(1, 5)
        for movie in other.movies:
            expected = predictions[saved.ids.movie_ids.index(movie.id)].item()
            assert movie.values["prediction"] == pytest.approx(expected, abs=1e-5)


# --- new users -----------------------------------------------------------------------------------


def test_what_a_new_user_likes_changes_the_recommendations(any_model):
    torch.manual_seed(0)
    model = any_model.model
    state = {name: part.clone() for name, part in model.state_dict().items()}
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    found = []
    for movies in ((0, 1, 2), (8, 9, 10)):
        history = one_history(*movies, rating=5.0, time=[0, 0, 0])
        (one,) = TopNRecommender(model, any_model.ids, 10, include_seen=True).for_histories(history, history)
        assert one.id == "new"
        found.append([movie.id for movie in one.movies])
    model.load_state_dict(state)
    assert found[0] != found[1]


def test_movies_that_a_new_user_rated_are_not_recommended(any_model):
    history = one_history(0, 1, 23, rating=5.0)
    (one,) = TopNRecommender(any_model.model, any_model.ids, 5).for_histories(history, history)
    assert len(one.movies) == 5 and not {movie.id for movie in one.movies} & {2, 9, 163}


# --- similar and popular movies ------------------------------------------------------------------


def test_similar_movies_are_those_of_the_highest_cosine(any_model):
    vectors = torch.nn.functional.normalize(any_model.model.movie_vectors().detach())
    cosine = (vectors @ vectors[1]).tolist()
    others = sorted((i for i in range(27) if i != 1), key=lambda i: -cosine[i])
    found = similar(any_model.model, any_model.ids, 1, 4)
    assert [movie.id for movie in found] == [any_model.ids.movie_ids[i] for i in others[:4]]
    assert [movie.values["cosine"] for movie in found] == pytest.approx([cosine[i] for i in others[:4]], abs=1e-6)


def test_the_most_popular_movies_have_the_most_ratings(saved):
    """Among those that the user has not seen or, with seen movies included, among all; the first of equal ones."""
    history = saved.ratings.history
    movies = [row[1] for row in tiny_ratings()]
    order = sorted(saved.ids.movie_ids, key=lambda movie: -movies.count(movie))
    seen = history.pad(torch.tensor(find_users(saved.ids, ["4"])))
    left = [movie for movie in order if movie not in RATED[4]]
    for top_n, include_seen, expected in ((5, False, left[:5]), (27, False, left), (5, True, order[:5])):
        recommender = TopNRecommender(saved.model, saved.ids, top_n, include_seen)
        assert recommender.most_popular(history, seen) == expected


def test_every_model_recommends_allowed_movies_alone(any_model):
    """The best of the allowed ones, for users of the data and new ones."""
    mask = allowed_movies(any_model.ids, genres=["musical", "war"], exclude=["900"])
    assert mask.nonzero().flatten().tolist() == [IDS.index(163)]
    mask = allowed_movies(any_model.ids, years=(1960, 1970))
    every, few = (TopNRecommender(any_model.model, any_model.ids, n, allowed=m) for n, m in ((27, None), (3, mask)))
    known, new = any_model.ratings.history, one_history(3, 5, rating=5.0)
    for made in (lambda r: r.for_users(range(30), known, known), lambda r: r.for_histories(new, new)):
        for one, other in zip(made(every), made(few), strict=True):
            assert other.movies == [movie for movie in one.movies if mask[IDS.index(movie.id)]][:3]


# --- vectors -------------------------------------------------------------------------------------


def with_inner_products_alone(model: torch.nn.Module) -> torch.nn.Module:
    """A copy of a model with random parameters, reduced to biases and the products of vectors."""
    model = copy.deepcopy(model)
    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    kind = type(model).__name__
    if kind == "Recommender":
        last = model.mlp[-1]
        model.context_weights.zero_()
        for one in model.sessions.biases:
            one.mean.zero_()
    elif kind == "HistoryRecommender":
        last = model.mlp[-1]
        for logarithms in (model.log_constant, model.log_cosine, model.log_time):
            logarithms.fill_(-torch.inf)
        model.context_weights.weight.zero_()
    else:
        return model
    last.weight.zero_()
    last.bias.zero_()
    return model


def biases_of(model: torch.nn.Module) -> torch.Tensor:
    """What a model adds to the products, [n_users, n_movies] or [n_movies]."""
    kind = type(model).__name__
    if kind == "HistoryRecommender":
        return model.mean + model.item_tower()["bias"]
    if kind == "Recommender":
        return model.mean + model.users.mean[:, -1:] + model.item_tower()[1]
    if kind == "RankingRecommender":
        return model.item_tower(model.has_id)[1]
    return model.bias if kind == "Autoencoder" else torch.zeros(27)


@torch.no_grad()
def test_products_of_the_vectors_are_what_the_models_add_to_their_biases(any_model, monkeypatch):
    """From all ratings and from the training ones; two users at a time give the same."""
    monkeypatch.setattr("Models.inference.recommend.CHUNK_USERS", 2)
    model = with_inner_products_alone(any_model.model)
    for known in (any_model.ratings.history, any_model.ratings.training()):
        found = vectors(model, any_model.ids, known)
        history = known.pad(torch.arange(30))
        whole = model.logits(history) if type(model).__name__ == "Autoencoder" else model.score(history)
        products = found["user_vectors"] @ found["movie_vectors"].T
        assert np.abs(products).mean() > 0.1
        np.testing.assert_allclose(products + biases_of(model).numpy(), whole.numpy(), atol=1e-4, rtol=1e-4)


def test_the_vectors_of_users_follow_the_known_ratings(any_model):
    every, training = (
        vectors(any_model.model, any_model.ids, known)["user_vectors"]
        for known in (any_model.ratings.history, any_model.ratings.training())
    )
    assert every.shape == training.shape and every.dtype == np.float32
    assert not np.array_equal(every, training)


@torch.no_grad()
def test_a_user_without_ratings_has_vectors_too(any_model):
    empty = dataclasses.replace(one_history(3, user=0), mask=torch.zeros(1, 1).bool())
    assert any_model.model.user_vectors(empty).isfinite().all()


def test_vectors_come_with_the_ids_of_the_data(saved):
    found = vectors(saved.model, saved.ids, saved.ratings.history)
    assert list(found) == ["movie_ids", "movie_vectors", "user_ids", "user_vectors"]
    assert found["movie_ids"].tolist() == saved.ids.movie_ids and found["movie_ids"].dtype == np.int64
    assert found["user_ids"].tolist() == saved.ids.user_ids and found["user_ids"].dtype == np.int64
    np.testing.assert_array_equal(found["movie_vectors"], saved.model.movie_vectors().detach().numpy())
    words = dataclasses.replace(saved.ids, user_ids=[f"ü{user}" for user in saved.ids.user_ids])
    assert vectors(saved.model, words, saved.ratings.history)["user_ids"].tolist() == words.user_ids


def test_a_model_without_vectors_of_users_gives_those_of_movies(saved):
    class MoviesAlone(Constant):
        def movie_vectors(self) -> torch.Tensor:
            return torch.nn.Parameter(torch.ones(27, 1))

    found = vectors(MoviesAlone(saved.model), saved.ids, saved.ratings.history)
    assert list(found) == ["movie_ids", "movie_vectors"] and found["movie_vectors"].shape == (27, 1)


def test_a_user_who_has_rated_every_movie_is_in_no_audience(any_model):
    n, n_movies = len(any_model.ids.user_ids), len(any_model.ids.movie_ids)
    seen = dataclasses.replace(
        any_model.ratings.history,
        offsets=torch.tensor([0, *[n_movies] * n]),
        movie=torch.arange(n_movies),
        rating=torch.full((n_movies,), 3.0),
        time=torch.arange(n_movies),
    )
    recommender = TopNRecommender(any_model.model, any_model.ids, top_n=n)
    found = audience(recommender, 3, any_model.ratings.history, seen)
    assert sorted(user for user, _ in found) == sorted(any_model.ids.user_ids[1:])
    assert all(np.isfinite(value) for _, value in found)
