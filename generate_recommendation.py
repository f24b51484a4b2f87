#!/usr/bin/env python3
"""Recommend movies to one user, several or all, from a finished training.

    python generate_recommendation.py
    python generate_recommendation.py --user 42 --top-n 5 --format json
    python generate_recommendation.py --users 1,6,7                # or a file of ids, one per line
    python generate_recommendation.py --all-users --format csv --output top10.csv
    python generate_recommendation.py --liked 1,3114,2355          # a new user who likes these movies
    python generate_recommendation.py --ratings mine.csv           # or rated them: userId,movieId,rating,timestamp
    python generate_recommendation.py --explain                    # with the ratings that matter most for each movie
    python generate_recommendation.py --at 2003-02-28T20:00        # as of then, for sequential models; default: now
    python generate_recommendation.py --similar-to 260
    python generate_recommendation.py --new-movies new.csv         # also movies new to the run: movieId,title ...
    python generate_recommendation.py --audience-of 260            # the users who would like a movie most
    python generate_recommendation.py --genres Comedy,Drama --years 1990-1999 --exclude 1,2      # only of these movies
    python generate_recommendation.py --run runs/ranking --predictions-from runs/ratings      # with predicted ratings
    python generate_recommendation.py --export-vectors vectors.npz # the vectors of movies and users
    python generate_recommendation.py --run hf:owner/name --liked 1,3114   # a model shared by utils/hub.py
    torchrun --nproc-per-node 2 -- generate_recommendation.py --all-users --output top10.csv    # split over processes

Recommendations are made from all ratings of a user in the data set, whether for training, validation or test. Movies
that the user has rated are left out unless --include-seen is given; every other movie of the catalogue can appear,
whether or not anybody has rated it. The last line is `Top 10 recommended movie IDs for user 1: [...]`.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from Models.checkpoint import SavedModel, load_model
from Models.Dataset import Model
from Models.inference.explain import explained
from Models.inference.named import find_movies
from Models.inference.new_movies import add_new_movies, read_new_movies
from Models.inference.new_users import who_likes, with_ratings
from Models.inference.notes import note_on_later, note_on_lists, note_on_popular, note_on_training
from Models.inference.recommend import TopNRecommender, asked_at, audience, on_device_of, similar, vectors
from Models.inference.request import (
    Request,
    check_request,
    check_users,
    listed,
    movie_filter,
    request_time,
    wanted_users,
)
from Models.sequences import History, PaddedHistory
from utils import cli, distributed, hub
from utils.cli import display_path
from utils.config import parse
from utils.files import UserError, atomic_write
from utils.lists import WRITERS, Recommendations, Shown, Subject, opened, write_audience
from utils.runs import finished_run
from utils.shared_model import is_shared

MIN_SHARED = 0.5  # share of ratings that two runs on the same data have in common; one may have newer ones


def main() -> None:
    request = parse(Request, __doc__)
    with distributed.process_group(cli.resolve_device(request.device)) as device:
        generate(request, device)


def generate(request: Request, device: torch.device) -> None:
    """Make what was requested on all ranks, and write it on rank 0."""
    check_request(request)
    run = hub.find_shared(request.run) or finished_run(None if request.run is None else Path(request.run))
    saved = load_with_new(request, run, device)
    check_users(request, saved)
    if request.export_vectors is not None:
        export_vectors(request, saved)
    elif request.similar_to is not None:
        list_similar(request, saved)
    elif request.audience_of is not None:
        list_audience(request, saved)
    else:
        recommend(request, saved, device)
    distributed.say(f"From {display_path(run)}: {type(saved.model).__name__}, trained on {saved.ids.dataset}.")
    note_on_training(saved, run)


def load_with_new(request: Request, run: Path, device: torch.device) -> SavedModel:
    """The model of a run, with the movies of --new-movies."""
    saved = load_model(run if is_shared(run) else run / "best.pt", device)
    if request.new_movies is None:
        return saved
    return add_new_movies(saved, run, read_new_movies(request.new_movies, request.encoding), device)


def recommend(request: Request, saved: SavedModel, device: torch.device) -> None:
    """Recommend to users of the data or to a new one, and compare with the most popular movies."""
    allowed = movie_filter(request, saved.ids)
    rating_model = load_rating_model(request, saved, device)
    new, is_timed = new_user(request, saved)
    time = request_time(request, saved) if is_timed else 0
    recommender = TopNRecommender(
        saved.model, saved.ids, request.top_n, request.include_seen, rating_model, allowed, time
    )
    every = saved.ratings.history
    if new is not None:
        check_new_users(saved.model, rating_model)
        note_on_later(request, time, new.request_time)
        found, histories, first = recommender.for_histories(new, new), [new], new
    else:
        users, known = wanted_users(request, saved.ids), scored_from(request, saved)
        note_on_later(request, time, known.latest_times()[list(users)])
        found = recommender.for_users(users, known, seen=every)
        histories = (known.pad(torch.tensor([user])) for user in users)
        first = every.pad(torch.tensor(users[:1]))
    if request.explain:
        found = explained(saved, found, (on_device_of(saved.model, asked_at(history, time)) for history in histories))
    shown = show(request, value_names(saved, rating_model), found)
    if not request.for_several and shown.last.movies and len(every.movie):
        note_on_popular(shown.last, recommender.most_popular(every, first))
    note_on_lists(request, saved, shown)
    if request.output:
        users = f"{shown.n:,} user{'s' * (shown.n > 1)}"
        print(f"Wrote the recommendations for {users} to {display_path(request.output)}.")


def scored_from(request: Request, saved: SavedModel) -> History:
    """The ratings that scores are made from: all known ones or, with --known train, the training ratings."""
    return saved.ratings.training() if request.known == "train" else saved.ratings.history


def value_names(saved: SavedModel, rating_model: Model | None) -> list[str]:
    """The columns of a list: the score of a ranking, the prediction of a rating, or both."""
    is_ranking = saved.model.config.task == "ranking"
    return ["score"] * is_ranking + ["prediction"] * (not is_ranking or rating_model is not None)


def list_similar(request: Request, saved: SavedModel) -> None:
    """The movies most similar to one.

    Raises:
        UserError: there is no such movie, or no other one.
    """
    (movie,) = find_movies(saved.ids, [request.similar_to])
    movies = similar(saved.model, saved.ids, movie, request.top_n, movie_filter(request, saved.ids))
    if not movies:
        raise UserError(f"The filters leave no movie but {request.similar_to} itself: relax them.")
    show(request, ["cosine"], [Recommendations(saved.ids.movie_ids[movie], movies)], of="movie")
    if len(movies) < request.top_n:
        distributed.say(f"Fewer than {request.top_n} other movies are left.")
    if request.output:
        print(f"Wrote the movies most similar to {request.similar_to} to {display_path(request.output)}.")


def list_audience(request: Request, saved: SavedModel) -> None:
    """The users who would like one movie most.

    Raises:
        UserError: there is no such movie.
    """
    (movie,) = find_movies(saved.ids, [request.audience_of])
    known, time = scored_from(request, saved), request_time(request, saved)
    note_on_later(request, time, known.latest_times())
    recommender = TopNRecommender(saved.model, saved.ids, request.top_n, request_time=time)
    found = audience(recommender, movie, known, saved.ratings.history)
    name = "probability" if saved.model.config.task == "ranking" else "prediction"
    with opened(request.output) as file:
        write_audience(file, request.format, saved.ids.movie_ids[movie], name, found)
    if len(found) < request.top_n:
        distributed.say(f"Fewer than {request.top_n} users have not rated it.")
    if request.output:
        print(f"Wrote the users who would like {request.audience_of} most to {display_path(request.output)}.")


def export_vectors(request: Request, saved: SavedModel) -> None:
    """Write the vectors of movies and, where the model has them, of users, as plain arrays."""
    time = request_time(request, saved)  # by all ranks
    if distributed.rank():
        return
    known = scored_from(request, saved)
    note_on_later(request, time, known.latest_times())
    arrays = vectors(saved.model, saved.ids, known, time)
    with atomic_write(request.export_vectors) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)
    words = f"{len(arrays['movie_ids']):,} movies"
    if "user_ids" in arrays:
        words += f" and {len(arrays['user_ids']):,} users"
    print(f"Wrote the vectors of {words} to {display_path(request.export_vectors)}.")


# --- new users and other models ------------------------------------------------------------------


def new_user(request: Request, saved: SavedModel) -> tuple[PaddedHistory | None, bool]:
    """The history of --liked or --ratings, None without them, and whether times are known.

    Raises:
        UserError: there are no times, but --at is given.
    """
    if request.liked is not None:
        return who_likes(saved, listed(request, "liked")), False
    if request.ratings is None:
        return None, True
    history, is_timed = with_ratings(saved, request.ratings, request.encoding)
    if request.at is not None and not is_timed:
        raise UserError(f"--at: {request.ratings} has no times to compare with it: add them, or leave --at out.")
    return history, is_timed


def check_new_users(*models: Model | None) -> None:
    """Raises UserError if a model knows its users only by embeddings."""
    for model in models:
        if model is not None and not model.serves_new_users:
            kind = type(model).__name__
            raise UserError(f"{kind} knows only the users that it was trained on: use a run of another preset.")


def load_rating_model(request: Request, saved: SavedModel, device: torch.device) -> Model | None:
    """The model of --predictions-from.

    Raises:
        UserError: there is no ranking to show its predictions beside, or it belongs to other data.
    """
    if request.predictions_from is None:
        return None
    run = finished_run(request.predictions_from)
    other = load_with_new(request, run, device)
    if saved.model.config.task != "ranking" or other.model.config.task != "rating":
        raise UserError("--predictions-from needs a run that predicts ratings, beside a --run that ranks.")
    names = ("user_ids", "movie_ids", "titles")
    are_alike = all(getattr(other.ids, name) == getattr(saved.ids, name) for name in names)
    if not are_alike or shared_ratings(saved, other) < MIN_SHARED:
        raise UserError(f"{run} was trained on other users or movies than --run: train both on the same data.")
    return other.model


# --- output --------------------------------------------------------------------------------------


def shared_ratings(one: SavedModel, other: SavedModel) -> float:
    """The share of one run's ratings that the other, of the same users and movies, also has: 0 to 1."""
    histories = (one.ratings.history, other.ratings.history)
    pairs = [history.users() * len(one.ids.movie_ids) + history.movie for history in histories]
    return float(torch.isin(*pairs).double().mean())


def show(request: Request, columns: list[str], found: Iterable[Recommendations], of: Subject = "user") -> Shown:
    """Write lists to the screen or --output."""
    n = n_short = 0
    with opened(request.output) as file:
        write = WRITERS[request.format](file, columns, of, only_one=not request.for_several)
        for one in found:
            write(one)
            n, n_short = n + 1, n_short + (len(one.movies) < request.top_n)
    return Shown(n, n_short, one)


if __name__ == "__main__":
    cli.run(main, prints_results=True)
