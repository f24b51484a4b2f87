"""Recommendations: the original's line, every format, and lists that leave out what was rated."""

import csv
import io
import json
import shutil
import subprocess
import sys

import pytest
import torch
from conftest import ROOT, TINY_TRAINING, tiny_ratings
from hypothesis import given
from hypothesis import strategies as st

from Models.checkpoint import read_checkpoint, rebuild
from Models.histories import Past
from Models.recommend import find_user, recommend, recommend_to_new, top
from utils.files import UserError

RATED = {user: {row[1] for row in tiny_ratings() if row[0] == user} for user in range(1, 90, 3)}
SCRIPT = "generate_recommendation.py"


@pytest.fixture(scope="module")
def scored(tiny_run):
    return rebuild(read_checkpoint(tiny_run / "best.pt"), torch.device("cpu"))


@given(st.lists(st.sampled_from([-torch.inf, 0.0, 1.0, 2.0, 3.0]), min_size=1, max_size=30), st.integers(1, 40))
def test_the_top_is_that_of_a_stable_sort(scores, n):
    ordered, places = torch.tensor(scores).sort(descending=True, stable=True)
    assert top(torch.tensor(scores), n).tolist() == places[ordered > -torch.inf][:n].tolist()


def ids_for(scored, user: str, top_n: int, include_seen: bool = False) -> list[int]:
    model, catalogue = scored
    (found,) = recommend(model, catalogue, [find_user(catalogue, user)], top_n, include_seen)
    return [movie.id for movie in found.movies]


def test_the_original_s_line_is_the_last_one(run_script, tiny_run, scored):
    lines = run_script(SCRIPT, "--run", tiny_run).stdout.splitlines()
    assert lines[-1] == f"Top 10 recommended movie IDs for user 1: {ids_for(scored, '1', 10)}"
    assert lines[0].split() == ["rank", "id", "title", "stars", "genres"]
    assert len(lines) == 1 + 10 + 1 + 1


def test_lists_are_the_best_unrated_movies(scored):
    model, catalogue = scored
    for user in RATED:
        scores = model.score(torch.tensor([find_user(catalogue, str(user))]))[0].tolist()
        by_hand = sorted(zip(catalogue.movie_ids, scores, strict=True), key=lambda pair: -pair[1])
        assert ids_for(scored, str(user), 5) == [movie for movie, _ in by_hand if movie not in RATED[user]][:5]
        assert ids_for(scored, str(user), 27, include_seen=True) == [movie for movie, _ in by_hand]


def test_never_rated_movies_can_be_recommended(scored):
    assert {900, 901} <= set(ids_for(scored, "1", 27))


def test_too_many_wanted_gives_all_that_are_left(run_script, tiny_run):
    done = run_script(SCRIPT, "--run", tiny_run, "--top-n", 100, "--format", "ids", "--user", 4)
    ids = [int(word) for word in done.stdout.split()]
    assert len(ids) == len(set(ids)) == 27 - 12 and not set(ids) & RATED[4]
    assert "fewer than 100 movies are left" in done.stderr
    done = run_script(SCRIPT, "--run", tiny_run, "--top-n", 100)
    assert done.stdout.splitlines()[-1].startswith("Top 15 recommended movie IDs for user 1: [")


def test_all_users_in_every_format(run_script, tiny_run, scored, tmp_path):
    expected = {user: ids_for(scored, str(user), 3) for user in RATED}
    for name in ("csv", "json", "ids", "text"):
        flags = ("--run", tiny_run, "--all-users", "--top-n", 3, "--format", name, "--output", tmp_path / name)
        assert "30 users" in run_script(SCRIPT, *flags).stdout
    found: dict[int, list[int]] = {}
    for row in csv.DictReader(io.StringIO((tmp_path / "csv").read_text())):
        found.setdefault(int(row["userId"]), []).append(int(row["movieId"]))
    assert found == expected
    found = {}
    for line in (tmp_path / "json").read_text().splitlines():
        content = json.loads(line)
        found[content["user"]] = [movie["id"] for movie in content["movies"]]
    assert found == expected
    lines = [[int(word) for word in line.split()] for line in (tmp_path / "ids").read_text().splitlines()]
    assert {user: ids for user, *ids in lines} == expected
    lines = [f"Top 3 recommended movie IDs for user {user}: {ids}" for user, ids in expected.items()]
    assert (tmp_path / "text").read_text().splitlines() == lines


def test_a_reader_that_has_seen_enough_is_no_fault(tiny_run):
    command = f"{sys.executable} {ROOT / SCRIPT} --run {tiny_run} --all-users --top-n 27 --format csv | head -n 1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert done.stdout.startswith("userId,rank") and "rror" not in done.stderr


def test_chunks_do_not_change_the_lists(scored, monkeypatch):
    model, catalogue = scored
    whole = list(recommend(model, catalogue, range(30), 4))
    monkeypatch.setattr("Models.recommend.CHUNK_CELLS", 60)  # two users at a time
    for one, other in zip(whole, recommend(model, catalogue, range(30), 4), strict=True):
        assert [movie.id for movie in one.movies] == [movie.id for movie in other.movies]


def test_an_unknown_user_is_named(run_script, tiny_run):
    done = run_script(SCRIPT, "--run", tiny_run, "--user", "2", code=1)
    assert "User '2' is not in tiny" in done.stderr and "new user" in done.stderr
    assert done.stdout == ""


def test_string_ids_come_back_as_they_are(run_script, tiny_encoder, tmp_path):
    data, features, run = tmp_path / "own", tmp_path / "f/movie_bert_dict.pkl", tmp_path / "run"
    data.mkdir()
    rows = "".join(f"u{u}\tm{m}\t{r}\n" for u, m, r, _ in tiny_ratings())
    (data / "own.inter").write_text("user_id:token\titem_id:token\trating:float\n" + rows)
    movies = "".join(f"m{i * 7 + 2}\tFilm {i}\n" for i in range(25))
    (data / "own.item").write_text("item_id:token\tmovie_title:token_seq\n" + movies)
    run_script("utils/BERT.py", "--data", data, "--encoder", tiny_encoder, "--features", features)
    run_script("train.py", "--data", data, "--features", features, "--run", run, *TINY_TRAINING)
    ids = run_script(SCRIPT, "--run", run, "--user", "u4", "--format", "ids").stdout.split()
    assert len(ids) == 10 and not set(ids) & {f"m{m}" for m in RATED[4]} and all(i.startswith("m") for i in ids)
    assert "its ids are strings such as u1" in run_script(SCRIPT, "--run", run, "--user", 4, code=1).stderr


def test_a_run_that_is_not_finished_is_not_used(run_script, tiny_run, tmp_path):
    shutil.copytree(tiny_run, tmp_path / "run")
    (tmp_path / "run/test_metrics.json").unlink()
    assert "no finished run" in run_script(SCRIPT, "--run", tmp_path / "run", code=1).stderr
    shutil.copytree(tiny_run, tmp_path / "other")
    checkpoint = torch.load(tmp_path / "other/best.pt", weights_only=True)
    checkpoint["sizes"]["n_users"] += 1
    torch.save(checkpoint, tmp_path / "other/best.pt")
    with pytest.raises(UserError, match="does not fit"):
        rebuild(read_checkpoint(tmp_path / "other/best.pt"), torch.device("cpu"))


def test_ties_stand_in_the_catalogue_s_order_and_the_scale_bounds_what_is_shown(scored):
    model, catalogue = scored

    class Constant(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.sizes, self.config, self.weight = model.sizes, model.config, torch.nn.Parameter(torch.zeros(1))

        def score(self, users):
            return torch.full((len(users), 27), 7.0)

    (found,) = recommend(Constant(), catalogue, [0], 3, include_seen=True)
    assert [movie.id for movie in found.movies] == catalogue.movie_ids[:3]
    assert [movie.values["stars"] for movie in found.movies] == [5.0] * 3


# --- new users and similar movies ----------------------------------------------------------------


@pytest.fixture(scope="module", params=["default", "ncf", "ncf-ranking", "gru", "autoencoder"])
def any_run(request, tiny, tiny_features, tmp_path_factory):
    """A run of each kind of model."""
    run = tmp_path_factory.mktemp("kinds") / "run"
    own = {"ncf-ranking": ("--negatives", 5), "gru": ("--length", 6)}.get(request.param, ())
    places = ("--data", tiny, "--features", tiny_features, "--run", run, "--preset", request.param)
    command = [sys.executable, ROOT / "train.py", *places, "--epochs", 3, "--embedding", 4, "--batch-size", 60, *own]
    subprocess.run([str(word) for word in command], check=True, capture_output=True)
    return run


def test_a_new_user_is_served_by_every_model(run_script, any_run, tmp_path):
    """From liked movies, and from a file of ratings that says the same."""
    done = run_script(SCRIPT, "--run", any_run, "--liked", "2, 9,163", "--top-n", 5)
    line = done.stdout.splitlines()[-1]
    assert line.startswith("Top 5 recommended movie IDs for user new: [")
    ids = json.loads(line.split(": ")[1])
    assert len(set(ids)) == 5 and not set(ids) & {2, 9, 163}
    (tmp_path / "mine.csv").write_text("userId,movieId,rating\n7,2,5\n7,9,5\n7,163,5\n")
    same = run_script(SCRIPT, "--run", any_run, "--ratings", tmp_path / "mine.csv", "--top-n", 5, "--format", "ids")
    assert [int(word) for word in same.stdout.split()] == ids


def test_stars_stand_beside_a_ranking(run_script, any_run, tiny_run, scored, tmp_path):
    """The list is the ranking's, the stars are the other run's; runs that have stars of their own are refused."""
    asked = ("--run", any_run, "--stars-from", tiny_run)
    if rebuild(read_checkpoint(any_run / "best.pt"), torch.device("cpu"))[0].config.objective == "rating":
        assert "wants --run to be trained to rank" in run_script(SCRIPT, *asked, code=1).stderr
        return
    run_script(SCRIPT, *asked, "--all-users", "--format", "csv", "--output", tmp_path / "with.csv")
    run_script(SCRIPT, "--run", any_run, "--all-users", "--format", "csv", "--output", tmp_path / "without.csv")
    both, alone = (list(csv.DictReader((tmp_path / name).open())) for name in ("with.csv", "without.csv"))
    assert [{k: v for k, v in row.items() if k != "stars"} for row in both] == alone
    model, catalogue = scored
    for row in both:
        stars = model.score(torch.tensor([find_user(catalogue, row["userId"])]))[0].clamp(1, 5)
        assert float(row["stars"]) == pytest.approx(
            stars[catalogue.movie_ids.index(int(row["movieId"]))].item(), abs=1e-4
        )
    shutil.copytree(tiny_run, tmp_path / "other")
    checkpoint = torch.load(tmp_path / "other/best.pt", weights_only=True)
    checkpoint["catalogue"]["movie_ids"].reverse()
    torch.save(checkpoint, tmp_path / "other/best.pt")
    refused = run_script(SCRIPT, "--run", any_run, "--stars-from", tmp_path / "other", code=1)
    assert "other users or movies" in refused.stderr
    new = run_script(SCRIPT, *asked, "--liked", "2,9", "--format", "json").stdout
    assert all(1 <= movie["stars"] <= 5 and "score" in movie for movie in json.loads(new)["movies"])


def test_what_a_new_user_likes_changes_the_list(any_run):
    model, catalogue = rebuild(read_checkpoint(any_run / "best.pt"), torch.device("cpu"))
    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    lists = []
    for movies in ([0, 1, 2], [8, 9, 10]):
        columns = torch.tensor([movies]), torch.full((1, 3), 5.0), torch.zeros(1, 3, dtype=torch.int64)
        past = Past(*columns, torch.ones(1, 3, dtype=torch.bool))
        lists.append([movie.id for movie in recommend_to_new(model, catalogue, "new", past, 10, True).movies])
    assert lists[0] != lists[1]


def test_similar_movies_are_those_of_the_highest_cosine(run_script, any_run):
    model, catalogue = rebuild(read_checkpoint(any_run / "best.pt"), torch.device("cpu"))
    vectors = torch.nn.functional.normalize(model.movie_vectors().detach())
    cosine = (vectors @ vectors[1]).tolist()
    others = sorted((i for i in range(27) if i != 1), key=lambda i: -cosine[i])
    done = run_script(SCRIPT, "--run", any_run, "--similar-to", 9, "--top-n", 4)
    expected = [catalogue.movie_ids[i] for i in others[:4]]
    assert done.stdout.splitlines()[-1] == f"Top 4 movie IDs most similar to movie 9: {expected}"


def test_the_embedding_learned_for_a_new_user_fits_their_ratings(scored):
    """Better than that of a user of whom nothing is known."""
    model, _ = scored
    movies, stars = torch.arange(12)[None], torch.tensor([[5.0, 1.0] * 6])
    past = Past(movies, stars, torch.zeros(1, 12, dtype=torch.int64), torch.ones(1, 12, dtype=torch.bool))
    nothing = Past(movies, stars, past.time, torch.zeros(1, 12, dtype=torch.bool))
    fitted, average = (model.score_past(one)[0, :12].detach() for one in (past, nothing))
    assert (fitted - stars[0]).square().mean() < (average - stars[0]).square().mean()


def test_wrong_new_users_are_named(run_script, tiny_run, tmp_path):
    done = run_script(SCRIPT, "--run", tiny_run, "--liked", "2,5,77", code=1)
    assert "tiny has no movie 5, 77" in done.stderr
    assert "has no movie 3" in run_script(SCRIPT, "--run", tiny_run, "--similar-to", 3, code=1).stderr
    done = run_script(SCRIPT, "--run", tiny_run, "--liked", "2", "--all-users", code=1)
    assert "--all-users and --liked ask for different lists" in done.stderr
    (tmp_path / "two.csv").write_text("userId,movieId,rating\n7,2,5\n8,9,5\n")
    done = run_script(SCRIPT, "--run", tiny_run, "--ratings", tmp_path / "two.csv", code=1)
    assert "holds 2 users" in done.stderr
