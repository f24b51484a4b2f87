"""Recommendations: the best unrated movies by the scores of the model, for users of the data and new ones."""

import dataclasses

import pytest
import torch
from helpers import SMALL, one_history, tiny_ratings, train_here

from Models.checkpoint import SavedModel, load_model
from Models.Dataset import RowBatches
from Models.recommend import (
    TopNRecommender,
    find_movies,
    find_user,
    most_popular,
    scores_of_known,
    similar,
)
from Models.sequences import PaddedHistory
from utils.files import UserError

CPU = torch.device("cpu")
RATED = {user: {row[1] for row in tiny_ratings() if row[0] == user} for user in range(1, 90, 3)}


@pytest.fixture(scope="module")
def saved(tiny_run) -> SavedModel:
    return load_model(tiny_run / "best.pt", CPU)


@pytest.fixture(scope="module", params=["history", "ncf", "ncf-ranking", "gru", "autoencoder"])
def any_model(request, places, tmp_path_factory) -> SavedModel:
    """A trained model of each kind."""
    run = tmp_path_factory.mktemp(request.param) / "run"
    train_here(*places, "--run", run, "--preset", request.param, "--epochs", 2, *SMALL[request.param])
    return load_model(run / "best.pt", CPU)


def recommended(saved: SavedModel, user: str, top_n: int, **settings) -> list[int]:
    """Ids of the movies recommended to one user from all ratings."""
    recommender = TopNRecommender(saved.model, saved.ids, top_n, **settings)
    history = saved.known.history
    (found,) = recommender.for_users([find_user(saved.ids, user)], known=history, seen=history)
    return [movie.id for movie in found.movies]


# --- users of the data ---------------------------------------------------------------------------


def test_recommendations_are_the_best_unrated_movies(saved):
    for user in RATED:
        index = torch.tensor([find_user(saved.ids, str(user))])
        scores = saved.model.score(saved.known.history.pad(index))[0].tolist()
        by_hand = sorted(zip(saved.ids.movie_ids, scores, strict=True), key=lambda pair: -pair[1])
        assert recommended(saved, str(user), 5) == [movie for movie, _ in by_hand if movie not in RATED[user]][:5]
        assert recommended(saved, str(user), 27, include_seen=True) == [movie for movie, _ in by_hand]


def test_never_rated_movies_can_be_recommended(saved):
    assert {900, 901} <= set(recommended(saved, "1", 27))


def test_as_many_movies_as_are_left_are_recommended(saved):
    movies = recommended(saved, "4", 100)
    assert len(movies) == len(set(movies)) == 27 - 12 and not set(movies) & RATED[4]


def test_recommendations_come_from_the_known_ratings_and_hold_no_seen_movie(any_model):
    """Scored from all ratings, or from the training ones; in both cases without any movie that was rated."""
    every, training = any_model.known.history, any_model.known.training()
    recommender = TopNRecommender(any_model.model, any_model.ids, 5)
    for known in (every, training):
        for index, found in enumerate(recommender.for_users(range(30), known, seen=every)):
            with torch.no_grad():
                scores = any_model.model.score(known.pad(torch.tensor([index])))[0]
            scores[every.pad(torch.tensor([index])).movie[0]] = -torch.inf
            best = scores.sort(descending=True, stable=True)
            names = [any_model.ids.movie_ids[i] for i in best.indices[:5].tolist()]
            assert found.user == any_model.ids.user_ids[index] and [movie.id for movie in found.movies] == names
            name = "score" if any_model.model.config.task == "ranking" else "prediction"
            expected = best.values[:5] if name == "score" else best.values[:5].clamp(1, 5)
            assert [movie.values[name] for movie in found.movies] == pytest.approx(expected.tolist(), abs=1e-4)


def test_more_known_ratings_change_the_recommendations_of_models_of_histories(any_model):
    every, training = any_model.known.history, any_model.known.training()
    users = torch.arange(30)
    with torch.no_grad():
        scores = [any_model.model.score(known.pad(users)) for known in (every, training)]
    by_embedding = type(any_model.model).__name__ == "Recommender"
    assert torch.equal(*scores) == by_embedding


@pytest.mark.parametrize("cells", [60, 10_000_000])
def test_chunks_do_not_change_the_recommendations(saved, monkeypatch, cells):
    """Two users at a time, or all."""
    monkeypatch.setattr("Models.recommend.CHUNK_CELLS", cells)
    history = saved.known.history
    recommender = TopNRecommender(saved.model, saved.ids, 4)
    found = list(recommender.for_users(range(30), history, history))
    assert [one.user for one in found] == saved.ids.user_ids
    assert [[movie.id for movie in one.movies] for one in found] == [
        recommended(saved, str(user), 4) for user in saved.ids.user_ids
    ]


class Constant(torch.nn.Module):
    """A model that predicts 7 for everything."""

    batching = RowBatches()

    def __init__(self, model: torch.nn.Module):
        super().__init__()
        self.stats, self.config, self.weight = model.stats, model.config, torch.nn.Parameter(torch.zeros(1))

    def score(self, history: PaddedHistory) -> torch.Tensor:
        return torch.full((len(history.user), 27), 7.0)


def test_ties_stand_in_catalogue_order_and_the_scale_bounds_what_is_shown(saved):
    recommender = TopNRecommender(Constant(saved.model), saved.ids, 3, include_seen=True)
    (found,) = recommender.for_users([0], saved.known.history, saved.known.history)
    assert [movie.id for movie in found.movies] == saved.ids.movie_ids[:3]
    assert [movie.values["prediction"] for movie in found.movies] == [5.0] * 3


def test_titles_and_genres_belong_to_the_movies(saved):
    recommender = TopNRecommender(saved.model, saved.ids, 27, include_seen=True)
    (found,) = recommender.for_users([0], saved.known.history, saved.known.history)
    movies = {movie.id: movie for movie in found.movies}
    assert movies[163].title == "Misérables, Les (1995)" and movies[163].genres == "Drama|Musical"
    assert movies[170].genres == "" and len(movies) == 27


# --- seen movies ---------------------------------------------------------------------------------


def test_a_seen_movie_is_scored_from_the_other_ratings(any_model):
    """Each by a history without that rating, computed alone."""
    history = any_model.known.history.pad(torch.tensor([5, 2])).row(0)
    with torch.no_grad():
        found = scores_of_known(any_model.model, history)
        for k in range(12):
            others = [i for i in range(12) if i != k]
            columns = (column[:, others] for column in (history.movie, history.rating, history.time, history.mask))
            alone = any_model.model.score(PaddedHistory(history.user, *columns))
            torch.testing.assert_close(found[k], alone[0, history.movie[0, k]], atol=1e-4, rtol=1e-4)


def test_without_ratings_there_are_no_seen_movies_to_score(saved):
    empty = dataclasses.replace(one_history(3), mask=torch.zeros(1, 1).bool())
    assert scores_of_known(saved.model, empty).shape == (0,)


def test_with_seen_movies_included_each_has_its_score_from_the_others(any_model):
    every = any_model.known.history
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
    history = saved.known.history
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
        assert one.user == "new"
        found.append([movie.id for movie in one.movies])
    model.load_state_dict(state)
    assert found[0] != found[1]


def test_movies_that_a_new_user_rated_are_not_recommended(any_model):
    history = one_history(0, 1, 23, rating=5.0)
    (one,) = TopNRecommender(any_model.model, any_model.ids, 5).for_histories(history, history)
    assert len(one.movies) == 5 and not {movie.id for movie in one.movies} & {2, 9, 163}


# --- similar and popular movies, ids -------------------------------------------------------------


def test_similar_movies_are_those_of_the_highest_cosine(any_model):
    vectors = torch.nn.functional.normalize(any_model.model.movie_vectors().detach())
    cosine = (vectors @ vectors[1]).tolist()
    others = sorted((i for i in range(27) if i != 1), key=lambda i: -cosine[i])
    found = similar(any_model.model, any_model.ids, 1, 4)
    assert [movie.id for movie in found] == [any_model.ids.movie_ids[i] for i in others[:4]]
    assert [movie.values["cosine"] for movie in found] == pytest.approx([cosine[i] for i in others[:4]], abs=1e-6)


def test_the_most_popular_movies_have_the_most_ratings(saved):
    """Of equal ones the first of the catalogue, and none that the user has seen."""
    movies = [row[1] for row in tiny_ratings()]
    order = sorted(saved.ids.movie_ids, key=lambda movie: -movies.count(movie))
    assert most_popular(saved.ids, saved.known.history, torch.tensor([], dtype=torch.int64), 27) == order
    seen = [saved.ids.movie_ids.index(movie) for movie in order[:3]]
    assert most_popular(saved.ids, saved.known.history, torch.tensor(seen), 5) == order[3:8]


def test_an_id_is_the_same_user_as_number_and_as_text(saved):
    assert find_user(saved.ids, "4") == saved.ids.user_ids.index(4)
    words = dataclasses.replace(saved.ids, user_ids=[f"u{user}" for user in saved.ids.user_ids])
    assert find_user(words, "u4") == saved.ids.user_ids.index(4)
    with pytest.raises(UserError, match=r"User '2' is not in tiny \(its ids are numbers such as 1\): for a new user"):
        find_user(saved.ids, "2")
    with pytest.raises(UserError, match="its ids are strings such as u1"):
        find_user(words, "4")


def test_unknown_movies_are_named(saved):
    assert find_movies(saved.ids, ["2", "163"]) == [0, 23]
    with pytest.raises(UserError, match="tiny has no movie 5, 77: take ids from its movies file"):
        find_movies(saved.ids, ["2", "5", "77"])
