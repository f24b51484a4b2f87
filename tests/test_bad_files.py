"""Bad files: damaged at random, odd, or of another training; read or refused in a sentence, never silently used."""

import shutil
import signal

import numpy as np
import pytest
import torch
from conftest import TINY_TRAINING, tiny_ratings, write_dat
from forked import SOAK, Script, explained, wait_for
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import generate_recommendation
import train
from Models.checkpoint import read_checkpoint, rebuild
from Models.dataLoader import demographics
from utils import BERT
from utils.features import read_features
from utils.files import UserError, read_pickle
from utils.readers import read_dataset

EXAMPLES = 4000 if SOAK else 60
NASTY = [
    *(b"", b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"\r\n", b"\n\n", b"::", b",", b"\t", b'"', b"'", b" ", b"|", b"\\"),
    *(b"nan", b"inf", b"-1", b"1e999", b"99999999999999999999", b"4294967296", b"3.5", b"None", b"x" * 5000),
    "ü☃".encode(),
]
damage = st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 8), st.sampled_from(NASTY)), min_size=1, max_size=4)
fuzzed = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def damaged(content: bytes, damage: list[tuple[int, int, bytes]]) -> bytes:
    """The content with some bytes replaced by others, at each place `n` bytes by a word."""
    for place, n, word in damage:
        place %= len(content) + 1
        content = content[:place] + word + content[place + n :]
    return content


def tables(rows: list[list], header: str = "", separator: str = "::") -> str:
    """Lines of fields, under a header if there is one."""
    lines = [separator.join(map(str, row)) for row in rows]
    return "\n".join([header, *lines] if header else lines) + "\n"


RATINGS = [list(row) for row in tiny_ratings()[:40]]
MOVIES = [[movie, f"Film, {movie} (1990)", "1990"] for movie in sorted({row[1] for row in tiny_ratings()})]
USERS = [[user, 25 + user, "F" if user % 2 else "M", "4", "55117"] for user in sorted({row[0] for row in RATINGS})]
DATA_SETS = {
    "100K": {
        "u.data": tables(RATINGS, separator="\t"),
        "u.item": tables([[*movie, "", "", "1", "0"] for movie in MOVIES], separator="|"),
        "u.user": tables(USERS, separator="|"),
        "u.genre": tables([["Drama", 0], ["Comedy", 1]], separator="|"),
    },
    "1M": {
        "ratings.dat": tables(RATINGS),
        "movies.dat": tables([[*movie[:2], "Drama|War"] for movie in MOVIES]),
        "users.dat": tables([[user, gender, age, *rest] for user, age, gender, *rest in USERS]),
    },
    "20M": {
        "ratings.csv": tables(RATINGS, "userId,movieId,rating,timestamp", ","),
        "movies.csv": tables([[m, f'"{title}"', "Drama|War"] for m, title, _ in MOVIES], "movieId,title,genres", ","),
        "users.csv": tables(USERS, "userId,age,gender,occupation,zip_code", ","),
    },
    "RecBole": {
        "x.inter": tables(RATINGS, "user_id:token\titem_id:token\trating:float\ttimestamp:float", "\t"),
        "x.item": tables(MOVIES, "item_id:token\tmovie_title:token_seq\trelease_year:token", "\t"),
        "x.user": tables(USERS, "user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token", "\t"),
    },
}


@pytest.mark.parametrize("name", DATA_SETS)
@fuzzed
@given(data=st.data())
def test_a_damaged_data_set_is_read_or_named(tmp_path, name, data):
    which = data.draw(st.sampled_from(list(DATA_SETS[name])))
    for file, text in DATA_SETS[name].items():
        content = text.encode()
        (tmp_path / file).write_bytes(damaged(content, data.draw(damage)) if file == which else content)
    try:
        found = read_dataset(tmp_path)
    except UserError as error:
        assert len(str(error)) < 600, "no sentence"
        assert str(tmp_path) in str(error)
        return
    assert np.isfinite(found.ratings["rating"]).all() and len(found.ratings)
    assert set(found.ratings["movie"]) <= set(found.movies["movie"])
    assert all(isinstance(title, str) for title in found.movies["title"])
    assert np.isfinite(demographics(found.users, found.ratings["user"].unique())).all()


@fuzzed
@given(damage=damage)
def test_a_damaged_checkpoint_is_refused(tmp_path, tiny_run, damage):
    whole = (tiny_run / "best.pt").read_bytes()
    (tmp_path / "best.pt").write_bytes(damaged(whole, damage))
    try:
        found = read_checkpoint(tmp_path / "best.pt")
    except UserError:
        return
    expected = read_checkpoint(tiny_run / "best.pt")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found["state"][name], value) for name, value in expected["state"].items())


@fuzzed
@given(which=st.sampled_from(["movie_bert_dict.pkl", "movie_bert_dict.json"]), damage=damage)
def test_damaged_features_are_refused(tmp_path, tiny, tiny_features, which, damage):
    for name in ("movie_bert_dict.pkl", "movie_bert_dict.json"):
        shutil.copy(tiny_features.parent / name, tmp_path / name)
    (tmp_path / which).write_bytes(damaged((tmp_path / which).read_bytes(), damage))
    movies = read_dataset(tiny).movies
    try:
        found = read_features(tmp_path / "movie_bert_dict.pkl", movies)
    except UserError:
        return
    assert np.array_equal(found.vectors, read_features(tiny_features, movies).vectors)


@fuzzed
@given(damage=damage)
def test_a_damaged_pickle_is_refused_or_plain(tmp_path, tiny_features, damage):
    path = tmp_path / "features.pkl"
    path.write_bytes(damaged(tiny_features.read_bytes(), damage))
    try:
        found = read_pickle(path)
    except UserError as error:
        assert "utils/BERT.py" in str(error)
        return
    assert isinstance(found, (dict, np.ndarray, bytes, str, int, float, tuple, list, set, bool, type(None)))


def test_a_checkpoint_of_other_dimensions_is_refused(tiny_run):
    content = read_checkpoint(tiny_run / "best.pt")
    with pytest.raises(UserError, match="does not fit"):
        rebuild(content | {"config": content["config"] | {"embedding": 5}}, torch.device("cpu"))


def test_a_training_does_not_go_on_with_other_ratings(tiny, tiny_features, tmp_path):
    data = shutil.copytree(tiny, tmp_path / "data")
    run = tmp_path / "run"
    started = Script(
        train.main, "--data", data, "--features", tiny_features, "--run", run, *TINY_TRAINING, "--epochs", 4000
    )
    wait_for(run / "last.pt")
    started.stopped(0, signal.SIGKILL)
    text = (data / "ratings.dat").read_text()
    (data / "ratings.dat").write_text(text.replace("::5::", "::4::", 1))
    assert "ratings are not those" in explained(Script(train.main, "--resume", run))


def test_a_training_does_not_go_on_with_other_features(tiny, tiny_encoder, tmp_path):
    features, run = tmp_path / "movie_bert_dict.pkl", tmp_path / "run"
    places = ("--data", tiny, "--features", features)
    for main, *more in [
        (BERT.main, "--encoder", tiny_encoder),
        (train.main, "--run", run, *TINY_TRAINING),
        (BERT.main, "--encoder", tiny_encoder, "--pooling", "cls"),
    ]:
        assert Script(main, *places, *more).ended() == 0
    (run / "test_metrics.json").unlink()  # as if it had been killed
    assert "features are not those" in explained(Script(train.main, "--resume", run))


def rated(user: object, movies: int = 23, stars: str | None = None) -> str:
    """Rows of ratings.csv: a user's first movies of the 25 that can be rated."""
    return "".join(f"{user},{7 * k + 2},{stars or 1 + k % 5},{k}\n" for k in range(movies))


ODD = {  # rows of ratings.csv, and what is said where they are refused
    "one user": (rated(1), None),
    "one rating": (rated(1, 1), "is too small"),
    "every movie rated": (rated(1, 25) + rated(2), None),
    "no movie left": (rated(1, 25) + "1,900,4,50\n1,901,4,51\n" + rated(2), None),
    "one rating for all": (rated(1, stars="3") + rated(2, stars="3"), None),
    "half stars": (rated(1, stars="3.5") + rated(2), None),
    "ratings of 0": (rated(1, stars="0"), "above 0"),
    "negative": (rated(1, stars="-1"), "line 2"),
    "repeated": (rated(1) + rated(1, 2), "more than once"),
    "nan": (rated(1) + "2,2,nan,0\n", "line 25"),
    "infinite": (rated(1) + "2,2,inf,0\n", "line 25"),
    "no rating": (rated(1) + "2,2,,0\n", "line 25"),
    "unknown movie": (rated(1) + "2,3,4,0\n", "lack"),
    "too few columns": (rated(1) + "2,9\n", "line 25"),
    "too many columns": (rated(1) + "2,9,4,0,7\n", "line 25"),
    "mixed line endings": (rated(1).replace("\n", "\r\n", 7), None),
    "ids as strings": (rated("user one") + rated("user two"), None),
    "ids beyond 2^31": (rated(2**40) + rated(2), None),
    "ids beyond 2^63": (rated(2**70) + rated(2), None),
    "no rows": ("", "holds no ratings"),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_ratings_are_trained_on_or_refused(tiny_encoder, tmp_path, name):
    """A byte-order mark, quotes, movies without genres or title and a title of 5,000 characters are in all."""
    rows, refused = ODD[name]
    movies = write_dat(tmp_path / "dat", tiny_ratings()[:1]) / "movies.dat"
    lines = [line.split("::") for line in movies.read_text(encoding="latin-1").splitlines()]
    lines[0][1], lines[1][1] = "Long " * 1000 + "(1960)", ""
    data, run = tmp_path / "csv", tmp_path / "run"
    data.mkdir()
    table = "movieId,title,genres\n" + "".join(f'{number},"{title}",{genres}\n' for number, title, genres in lines)
    (data / "movies.csv").write_text(table, encoding="utf-8-sig")
    with (data / "ratings.csv").open("w", encoding="utf-8-sig", newline="") as file:
        file.write("userId,movieId,rating,timestamp\n" + rows)
    places = ("--data", data, "--features", tmp_path / "movie_bert_dict.pkl")
    stages = [
        (BERT.main, *places, "--encoder", tiny_encoder),
        (train.main, *places, "--run", run, *TINY_TRAINING),
        (generate_recommendation.main, "--run", run, "--user", rows.split(",")[0]),
    ]
    for main, *arguments in stages:
        stage = Script(main, *arguments)
        if stage.ended():
            break
    assert "Traceback" not in stage.said and (refused or "recommended movie IDs for user") in stage.said, stage.said
