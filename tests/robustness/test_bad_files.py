"""Bad files: randomly damaged, odd, or from another training; read or refused in a sentence, never silently misused."""

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from forked import SOAK, Script, explanation, wait_for
from helpers import TINY_TRAINING, tiny_ratings, write_dat
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import generate_recommendation
import train
from Models.checkpoint import load_model, read_checkpoint
from Models.ratings_data import demographics
from utils import BERT
from utils.features import read_features
from utils.files import UserError
from utils.pickles import read_pickle
from utils.readers import read_dataset

EXAMPLES = 4000 if SOAK else 60
fuzzed = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

# --- random damage -------------------------------------------------------------------------------

NASTY = [
    *(b"", b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"\r\n", b"\n\n", b"::", b",", b"\t", b'"', b"'", b" ", b"|", b"\\"),
    *(b"nan", b"inf", b"-1", b"1e999", b"99999999999999999999", b"4294967296", b"3.5", b"None", b"x" * 5000),
    "ü☃".encode(),
]
damage = st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 8), st.sampled_from(NASTY)), min_size=1, max_size=4)


def damaged(content: bytes, damage: list[tuple[int, int, bytes]]) -> bytes:
    """The content with some bytes replaced: at each position, `n` bytes by a word."""
    for position, n, word in damage:
        position %= len(content) + 1
        content = content[:position] + word + content[position + n :]
    return content


def table(rows: list[list], header: str = "", separator: str = "::") -> str:
    """Lines of fields, below a header if there is one."""
    lines = [separator.join(map(str, row)) for row in rows]
    return "\n".join([header, *lines] if header else lines) + "\n"


RATINGS = [list(row) for row in tiny_ratings()[:40]]
MOVIES = [[movie, f"Film, {movie} (1990)", "1990"] for movie in sorted({row[1] for row in tiny_ratings()})]
USERS = [[user, 25 + user, "F" if user % 2 else "M", "4", "55117"] for user in sorted({row[0] for row in RATINGS})]
DATA_SETS = {
    "100K": {
        "u.data": table(RATINGS, separator="\t"),
        "u.item": table([[*movie, "", "", "1", "0"] for movie in MOVIES], separator="|"),
        "u.user": table(USERS, separator="|"),
        "u.genre": table([["Drama", 0], ["Comedy", 1]], separator="|"),
    },
    "1M": {
        "ratings.dat": table(RATINGS),
        "movies.dat": table([[*movie[:2], "Drama|War"] for movie in MOVIES]),
        "users.dat": table([[user, gender, age, *rest] for user, age, gender, *rest in USERS]),
    },
    "20M": {
        "ratings.csv": table(RATINGS, "userId,movieId,rating,timestamp", ","),
        "movies.csv": table([[m, f'"{title}"', "Drama|War"] for m, title, _ in MOVIES], "movieId,title,genres", ","),
        "users.csv": table(USERS, "userId,age,gender,occupation,zip_code", ","),
    },
    "RecBole": {
        "x.inter": table(RATINGS, "user_id:token\titem_id:token\trating:float\ttimestamp:float", "\t"),
        "x.item": table(MOVIES, "item_id:token\tmovie_title:token_seq\trelease_year:token", "\t"),
        "x.user": table(USERS, "user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token", "\t"),
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
        assert len(str(error)) < 600, "this is not a sentence"
        assert str(tmp_path) in str(error)
        return
    assert np.isfinite(found.ratings["rating"]).all() and len(found.ratings)
    assert set(found.ratings["movie"]) <= set(found.movies["movie"])
    assert all(isinstance(title, str) for title in found.movies["title"])
    assert np.isfinite(demographics(found.users, found.ratings["user"].unique()).to_numpy(np.float32)).all()


@fuzzed
@given(damage=damage)
def test_a_damaged_checkpoint_is_refused(tmp_path, tiny_run, damage):
    content = (tiny_run / "best.pt").read_bytes()
    (tmp_path / "best.pt").write_bytes(damaged(content, damage))
    try:
        found = read_checkpoint(tmp_path / "best.pt")
    except UserError:
        return
    assert are_equal(found, read_checkpoint(tiny_run / "best.pt"))


def are_equal(one: Any, other: Any) -> bool:
    """Whether two contents of checkpoints are equal, tensors bit for bit."""
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(are_equal(one[name], other[name]) for name in one)
    if isinstance(one, tuple | list):
        return len(one) == len(other) and all(map(are_equal, one, other))
    return one == other


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


# --- files of another training -------------------------------------------------------------------


def test_a_checkpoint_of_other_dimensions_is_refused(tiny_run, tmp_path):
    content = read_checkpoint(tiny_run / "best.pt")
    assert content["config"]["embedding_dim"] == 4
    torch.save(content | {"config": content["config"] | {"embedding_dim": 5}}, tmp_path / "best.pt")
    with pytest.raises(UserError, match="does not fit") as error:
        load_model(tmp_path / "best.pt", torch.device("cpu"))
    assert "\n" not in str(error.value)


def test_a_training_does_not_continue_with_other_ratings(tiny, tiny_features, tmp_path):
    data = shutil.copytree(tiny, tmp_path / "data")
    places, run = ("--data", data, "--features", tiny_features), tmp_path / "run"
    started = Script(train.main, *places, "--run", run, *TINY_TRAINING, "--epochs", 4000)
    wait_for(run / "last.pt")
    started.stop(signal.SIGKILL)
    text = (data / "ratings.dat").read_text()
    (data / "ratings.dat").write_text(text.replace("::5::", "::4::", 1))
    assert "ratings or users are not those" in explanation(Script(train.main, "--resume", run))


def test_a_training_does_not_continue_with_other_features(tiny, tiny_encoder, tmp_path):
    features, run = tmp_path / "movie_bert_dict.pkl", tmp_path / "run"
    places = ("--data", tiny, "--features", features)
    for main, *more in [
        (BERT.main, "--encoder", tiny_encoder),
        (train.main, "--run", run, *TINY_TRAINING),
        (BERT.main, "--encoder", tiny_encoder, "--pooling", "cls"),
    ]:
        assert Script(main, *places, *more).wait() == 0
    final = Script(train.main, "--final", run, "--run", tmp_path / "final")
    assert "features are not those" in explanation(final)
    (run / "test_metrics.json").unlink()  # as if it had been killed
    assert "features are not those" in explanation(Script(train.main, "--resume", run))


def test_a_training_does_not_continue_from_another_training(places, tiny_run, tmp_path):
    run, other = shutil.copytree(tiny_run, tmp_path / "run"), tmp_path / "other"
    assert Script(train.main, *places, "--run", other, *TINY_TRAINING, "--embedding-dim", 5).wait() == 0
    (run / "test_metrics.json").unlink()
    shutil.copy(other / "last.pt", run / "last.pt")
    assert "last.pt" in explanation(Script(train.main, "--resume", run))


# --- damaged run folders -------------------------------------------------------------------------


def edited(*names: str, **change: Any) -> Callable[[dict], None]:
    """A function that sets values in the section of config.json under these names; None removes a value."""

    def edit(record: dict) -> None:
        for name in names:
            record = record[name]
        for name, value in change.items():
            record.pop(name) if value is None else record.update({name: value})

    return edit


DAMAGED_CONFIGS = {
    "no object": "[]",
    "null": "null",
    "cut": '{"config": {"preset": "ncf", "model"',
    "no configuration": edited(config=None),
    "no section": edited("config", model=None),
    "section is no object": edited("config", optim=3),
    "unknown preset": edited("config", preset="default"),
    "preset is no text": edited("config", preset=["ncf"]),
    "another model": edited("config", preset="history"),
    "missing setting": edited("config", "optim", lr=None),
    "unknown setting": edited("config", "optim", momentum=0.9),
    "text for a number": edited("config", "model", embedding_dim="4"),
    "below its limit": edited("config", "model", embedding_dim=-1),
    "unknown choice": edited("config", "data", split="alphabetical"),
    "two ratios": edited("config", "data", ratios=[0.5, 0.5]),
    "no folder": edited("config", "data", folder=5),
    "no features": edited(features=None),
    "no ratings": edited(ratings_sha256=None),
}


@pytest.mark.parametrize("name", DAMAGED_CONFIGS)
def test_a_damaged_config_is_explained(tiny_run, tmp_path, name):
    run, damage = shutil.copytree(tiny_run, tmp_path / "run"), DAMAGED_CONFIGS[name]
    write_damaged(run / "config.json", damage)
    explanation(Script(train.main, "--final", run, "--run", tmp_path / "final"))
    (run / "test_metrics.json").unlink()
    explanation(Script(train.main, "--resume", run))


DAMAGED_METRICS = {
    "empty": "",
    "no object": "[]",
    "no best epoch": "{}",
    "text for the best epoch": edited(best_epoch="two"),
    "best epoch 0": edited(best_epoch=0),
}


@pytest.mark.parametrize("name", DAMAGED_METRICS)
def test_damaged_test_metrics_are_explained(tiny_run, tmp_path, name):
    run, damage = shutil.copytree(tiny_run, tmp_path / "run"), DAMAGED_METRICS[name]
    write_damaged(run / "test_metrics.json", damage)
    explanation(Script(train.main, "--final", run, "--run", tmp_path / "final"))


def write_damaged(path: Path, damage: str | Callable[[dict], None]) -> None:
    """Replace the content of a JSON file with a text, or change values in it."""
    if not isinstance(damage, str):
        record = json.loads(path.read_text(encoding="utf-8"))
        damage(record)
        damage = json.dumps(record)
    path.write_text(damage, encoding="utf-8")


# --- odd ratings ---------------------------------------------------------------------------------


def ratings_of(user: object, n_movies: int = 23, rating: str | None = None) -> str:
    """Rows of ratings.csv: this user's ratings of the first `n_movies` of the tiny data set's 25 rated movies."""
    return "".join(f"{user},{7 * k + 2},{rating or 1 + k % 5},{k}\n" for k in range(n_movies))


ODD = {  # rows of ratings.csv, and words of the explanation if they are refused
    "one user": (ratings_of(1), None),
    "one rating": (ratings_of(1, 1), "is too small"),
    "every movie rated": (ratings_of(1, 25) + ratings_of(2), None),
    "no movie left": (ratings_of(1, 25) + "1,900,4,50\n1,901,4,51\n" + ratings_of(2), None),
    "equal ratings": (ratings_of(1, rating="3") + ratings_of(2, rating="3"), "nothing to predict"),
    "half ratings": (ratings_of(1, rating="3.5") + ratings_of(2), None),
    "ratings of 0": (ratings_of(1, rating="0"), "nothing to predict"),
    "negative": (ratings_of(1, rating="-2.5") + ratings_of(2, rating="-10") + ratings_of(3, rating="7"), None),
    "repeated": (ratings_of(1) + ratings_of(1, 2), "more than once"),
    "nan": (ratings_of(1) + "2,2,nan,0\n", "line 25"),
    "infinite": (ratings_of(1) + "2,2,inf,0\n", "line 25"),
    "no rating": (ratings_of(1) + "2,2,,0\n", "line 25"),
    "unknown movie": (ratings_of(1) + "2,3,4,0\n", "lack"),
    "too few columns": (ratings_of(1) + "2,9\n", "line 25"),
    "too many columns": (ratings_of(1) + "2,9,4,0,7\n", "line 25"),
    "mixed line endings": (ratings_of(1).replace("\n", "\r\n", 7), None),
    "ids as strings": (ratings_of("user one") + ratings_of("user two"), None),
    "ids beyond 2^31": (ratings_of(2**40) + ratings_of(2), None),
    "ids beyond 2^63": (ratings_of(2**70) + ratings_of(2), None),
    "no rows": ("", "holds no ratings"),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_ratings_are_trained_on_or_refused(tiny_encoder, tmp_path, name):
    """All cases have a byte-order mark, quotes, movies without genres or title and a title of 5,000 characters."""
    rows, refusal = ODD[name]
    movies = write_dat(tmp_path / "dat", tiny_ratings()[:1]) / "movies.dat"
    lines = [line.split("::") for line in movies.read_text(encoding="latin-1").splitlines()]
    lines[0][1], lines[1][1] = "Long " * 1000 + "(1960)", ""
    data, run = tmp_path / "csv", tmp_path / "run"
    data.mkdir()
    text = "movieId,title,genres\n" + "".join(f'{number},"{title}",{genres}\n' for number, title, genres in lines)
    (data / "movies.csv").write_text(text, encoding="utf-8-sig")
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
        if stage.wait():
            break
    said = stage.output
    assert "Traceback" not in said and (refusal or "recommended movie IDs for user") in said, said


@pytest.mark.parametrize("rating", ["5.5", "10", "1e30"])
def test_a_new_user_cannot_have_ratings_above_the_scale(tiny_run, tmp_path, rating):
    """The tiny data set is rated from 1 to 5; ratings of 1e30 would make every prediction NaN."""
    (tmp_path / "mine.csv").write_text(f"userId,movieId,rating\n7,2,4\n7,9,{rating}\n")
    said = explanation(Script(generate_recommendation.main, "--run", tiny_run, "--ratings", tmp_path / "mine.csv"))
    assert "mine.csv" in said and "5" in said
