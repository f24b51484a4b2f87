"""Nothing lost, nothing silently wrong: kill -9 at random moments, bad files, bad flags, full disks, Ctrl-C.

`make test` runs a quick share of it; `make soak` (SOAK=1) the whole. What is killed or starved is the user's own
script, its main() forked from a process that has imported it, so that a case costs no new start of Python.
"""

import multiprocessing
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY_TRAINING, tiny_ratings, write_dat
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_train import rows_of, states_are_equal, without_times

import generate_recommendation
import train
from Models.checkpoint import read_checkpoint, rebuild
from resultAnalyze import calibration, loss_ananlyze
from utils import BERT, cli, synthetic
from utils.download import fetch_dataset
from utils.features import read_features
from utils.files import UserError, read_json, read_pickle
from utils.readers import read_dataset

SOAK = bool(os.environ.get("SOAK"))
KILLS = 300 if SOAK else 6  # of each kind of work
EXAMPLES = 4000 if SOAK else 60
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks the scripts")


# A clean process that has imported all of this and forks the scripts: a test's own process has threads, whose locks
# a fork would copy.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    [
        *("train", "generate_recommendation", "utils.BERT", "utils.synthetic", "utils.encoder"),
        *("resultAnalyze.calibration", "resultAnalyze.loss_ananlyze", "transformers.models.auto.modeling_auto"),
        *("transformers.models.bert.modeling_bert", "transformers.models.auto.tokenization_auto"),
    ]
)


def work(main: Callable[[], None], words: list[str], limit: tuple[int, int] | None, said: Connection) -> None:
    """What a script's process does: its main, with what it says going into `said`."""
    for number in (1, 2):
        os.dup2(said.fileno(), number)
    sys.stdout, sys.stderr = (open(number, "w", buffering=1, closefd=False) for number in (1, 2))  # noqa: SIM115
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if limit:
        which, amount = limit
        if which == resource.RLIMIT_AS:  # beyond what is used already
            amount += int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(which, (amount, amount))
    sys.argv = ["script", *words]
    cli.run(main)


class Script:
    """A script in a process of its own, with what it says."""

    def __init__(self, main: Callable[[], None], *arguments: object, limit: tuple[int, int] | None = None):
        self.read, write = FORKS.Pipe(duplex=False)
        self.process = FORKS.Process(target=work, args=(main, [str(word) for word in arguments], limit, write))
        self.process.start()
        write.close()
        self.said = ""

    def ended(self) -> int:
        """The exit code; a script that needs more than two minutes hangs."""
        self.process.join(timeout=120)
        code = self.process.exitcode
        self.process.kill()
        assert code is not None, f"it hangs: {self.process.name}"
        with os.fdopen(os.dup(self.read.fileno()), errors="replace") as pipe:
            self.said = pipe.read()
        self.read.close()
        return code

    def stopped(self, after: float, number: signal.Signals) -> int:
        """Its exit code once it got a signal after so many seconds, if it was still there."""
        self.process.join(after)
        if self.process.exitcode is None:
            os.kill(self.process.pid, number)
        return self.ended()


def explained(script: Script) -> str:
    """What a script said that failed: a sentence for the user, and no traceback."""
    assert script.ended() == 1, script.said
    assert "error: " in script.said and "Traceback" not in script.said, script.said
    return script.said


@pytest.fixture
def places(tiny, tiny_features):
    return "--data", tiny, "--features", tiny_features


# --- kill -9 -------------------------------------------------------------------------------------


def duration(run: Callable[[], Script]) -> float:
    """Seconds that the work takes, so that kills fall anywhere in it."""
    Script(full_gpu).ended()  # the process that forks takes seconds to start, once
    started = time.monotonic()
    one = run()
    assert one.ended() == 0, one.said
    return time.monotonic() - started


@pytest.mark.parametrize("more", [(), ("--epochs", 60, "--patience", 2)], ids=["all epochs", "early stop"])
def test_a_training_survives_kills_and_ends_as_if_there_had_been_none(places, tmp_path, more):
    """Killed and resumed until it is finished; the weights and metrics are those of the run that was never killed."""
    flags, whole = (*places, *TINY_TRAINING, *more), tmp_path / "whole"
    seconds = duration(lambda: Script(train.main, *flags, "--run", whole))
    assert len(rows_of(whole / "metrics.csv")) < 60
    kills, run, moments = 0, tmp_path / "run", random.Random(0)
    while kills < KILLS // 2:
        shutil.rmtree(run, ignore_errors=True)
        code = Script(train.main, *flags, "--run", run).stopped(moments.uniform(0, seconds), signal.SIGKILL)
        while code:
            assert code == -signal.SIGKILL
            kills += 1
            check_unfinished(run)
            if (run / "test_metrics.json").is_file():  # it was killed after its last deed
                break
            if not (run / "config.json").is_file():  # it had not begun
                shutil.rmtree(run, ignore_errors=True)
                break
            code = Script(train.main, "--resume", run).stopped(moments.uniform(0, 2 * seconds), signal.SIGKILL)
        if (run / "test_metrics.json").is_file():
            assert without_times(run) == without_times(whole)
            assert all(states_are_equal(run / name, whole / name) for name in ("best.pt", "last.pt"))


def check_unfinished(run: Path) -> None:
    """Whatever is there is whole."""
    for name, read in {
        "config.json": read_json,
        "best.pt": read_checkpoint,
        "last.pt": read_checkpoint,
        "test_metrics.json": read_json,
    }.items():
        if (run / name).is_file():
            read(run / name)
    if (run / "metrics.csv").is_file():
        assert all(len(row) == 6 and None not in row.values() for row in rows_of(run / "metrics.csv"))


def test_killed_extraction_leaves_old_features_or_new(tiny, tiny_encoder, tmp_path):
    features = tmp_path / "movie_bert_dict.pkl"
    movies = read_dataset(tiny).movies

    def extract(pooling: str) -> Script:
        places = ("--data", tiny, "--features", features, "--encoder", tiny_encoder)
        return Script(BERT.main, *places, "--pooling", pooling)

    tables = {}
    for pooling in ("mean", "cls"):
        seconds = duration(lambda pooling=pooling: extract(pooling))
        tables[pooling] = read_features(features, movies).vectors
    moments = random.Random(1)
    for kill in range(KILLS):
        old, new = ("cls", "mean") if kill % 2 == 0 else ("mean", "cls")
        extract(new).stopped(moments.uniform(0, seconds), signal.SIGKILL)
        found = np.stack(list(read_pickle(features).values()))
        assert any(np.array_equal(found, tables[name]) for name in (old, new))
        assert extract(new).ended() == 0
        assert np.array_equal(read_features(features, movies).vectors, tables[new])


def test_killed_lists_leave_the_old_file_or_the_new_one(tiny_run, tmp_path):
    output = tmp_path / "top10.csv"
    flags = ("--run", tiny_run, "--all-users", "--format", "csv", "--output", output)
    seconds = duration(lambda: Script(generate_recommendation.main, *flags))
    whole, moments = output.read_text(), random.Random(2)
    for _ in range(KILLS):
        output.write_text("what was there")
        Script(generate_recommendation.main, *flags).stopped(moments.uniform(0, seconds), signal.SIGKILL)
        assert output.read_text() in ("what was there", whole)
    assert Script(generate_recommendation.main, *flags).ended() == 0
    assert output.read_text() == whole


# --- bad moments ---------------------------------------------------------------------------------


def test_ctrl_c_is_a_clean_stop(places, tiny_run, tmp_path):
    run = tmp_path / "run"
    started = Script(train.main, *places, "--run", run, *TINY_TRAINING, "--epochs", 4000)
    wait_for(run / "last.pt")
    assert started.stopped(0, signal.SIGINT) == 1
    assert "--resume" in started.said and "Traceback" not in started.said
    check_unfinished(run)
    again = Script(train.main, "--resume", run)
    wait_for(run / "metrics.csv")
    assert again.stopped(0.5, signal.SIGINT) == 1


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.is_file():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("size", [0, 100, 2_000, 20_000])
def test_a_full_disk_is_explained_and_loses_nothing(places, tiny, tiny_run, tiny_encoder, tmp_path, size):
    """No file may grow beyond `size` bytes, as on a disk that is full."""
    run, output, features = tmp_path / "run", tmp_path / "top10.csv", tmp_path / "movie_bert_dict.pkl"
    output.write_text("old")
    features.write_text("old")
    full = {"limit": (resource.RLIMIT_FSIZE, size)}
    explained(Script(train.main, *places, "--run", run, *TINY_TRAINING, **full))
    assert not (run / "test_metrics.json").is_file()
    check_unfinished(run)
    lists = ("--run", tiny_run, "--all-users", "--format", "csv", "--output", output)
    if size < 20_000:
        explained(Script(generate_recommendation.main, *lists, **full))
        assert output.read_text() == "old"
    made = ("--data", tiny, "--encoder", tiny_encoder, "--features", features)
    if size < 2_000:
        explained(Script(BERT.main, *made, **full))
        assert features.read_text() == "old"
    assert not [path for path in tmp_path.rglob(".*") if path.name != ".lock"]  # no half of a file stays behind


def test_too_little_memory_is_explained(places, tmp_path):
    limit = (resource.RLIMIT_AS, 300 << 20)
    said = explained(
        Script(train.main, *places, "--run", tmp_path / "run", "--preset", "ncf", "--embedding", 10**8, limit=limit)
    )
    assert "Out of memory" in said and "lower --batch-size" in said


def full_gpu() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")


def test_a_gpu_s_full_memory_is_explained():
    assert "lower --batch-size" in explained(Script(full_gpu))


def test_two_trainings_do_not_share_a_run_folder(places, tmp_path):
    run = tmp_path / "run"
    first = Script(train.main, *places, "--run", run, *TINY_TRAINING, "--epochs", 4000)
    wait_for(run / "last.pt")
    assert "Another training is writing" in explained(Script(train.main, "--resume", run))
    assert "already there" in explained(Script(train.main, *places, "--run", run, *TINY_TRAINING))
    assert first.stopped(0, signal.SIGKILL) == -signal.SIGKILL
    again = Script(train.main, "--resume", run)  # a killed process's lock is free
    assert again.stopped(1, signal.SIGINT) == 1 and "Stopped" in again.said


@pytest.mark.skipif(not Path("/sys").is_dir(), reason="wants a folder where nobody may write")
def test_a_folder_without_permission_is_explained(places, tiny_run):
    assert "/sys" in explained(Script(train.main, *places, "--run", "/sys/run", *TINY_TRAINING))
    explained(Script(generate_recommendation.main, "--run", tiny_run, "--output", "/sys/top10.csv"))


def test_a_device_is_written_to_and_stays_one(tiny_run):
    listed = Script(generate_recommendation.main, "--run", tiny_run, "--format", "ids", "--output", "/dev/null")
    assert listed.ended() == 0 and Path("/dev/null").is_char_device()


def reached(*arguments: object, **options: object) -> None:
    raise AssertionError("reached")


def extraction_that_reaches_nothing() -> None:
    """Every connection and every command, pip's as well, would end the script."""
    socket.socket.connect = socket.getaddrinfo = subprocess.run = reached
    BERT.main()


def test_offline_nothing_is_reached(tiny, tiny_encoder, tmp_path):
    places = ("--data", tiny, "--features", tmp_path / "movie_bert_dict.pkl", "--offline")
    assert Script(extraction_that_reaches_nothing, *places, "--encoder", tiny_encoder).ended() == 0
    unknown = Script(extraction_that_reaches_nothing, *places, "--encoder", "some/model-that-is-not-here")
    assert "--offline" in explained(unknown)
    with pytest.raises(UserError, match="--offline"):
        fetch_dataset("ml-1m", tmp_path, offline=True)


# --- bad files -----------------------------------------------------------------------------------

DAT = "".join("::".join(map(str, row)) + "\n" for row in tiny_ratings()[:40])
CSV = "userId,movieId,rating,timestamp\n" + DAT.replace("::", ",")
INTER = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n" + DAT.replace("::", "\t")
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


@fuzzed
@given(which=st.sampled_from(["ratings.dat", "movies.dat", "users.dat"]), damage=damage)
def test_a_damaged_data_set_is_read_or_named(tmp_path, which, damage):
    folder = write_dat(tmp_path / "dat", tiny_ratings()[:40])
    (folder / which).write_bytes(damaged((folder / which).read_bytes(), damage))
    check_readable_or_named(folder)


@fuzzed
@given(text=st.sampled_from([("ratings.csv", CSV), ("x.inter", INTER)]), damage=damage)
def test_a_damaged_table_is_read_or_named(tmp_path, text, damage):
    name, content = text
    folder = tmp_path / name
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(damaged(content.encode(), damage))
    titles = [(number, f"Film {number} (1990)") for number in sorted({row[1] for row in tiny_ratings()})]
    (folder / "movies.csv").write_text("movieId,title\n" + "".join(f"{n},{title}\n" for n, title in titles))
    (folder / "x.item").write_text("item_id:token\ttitle:token\n" + "".join(f"{n}\t{title}\n" for n, title in titles))
    check_readable_or_named(folder)


def check_readable_or_named(folder: Path) -> None:
    try:
        data = read_dataset(folder)
    except UserError as error:
        assert len(str(error)) < 600, "no sentence"
        assert str(folder) in str(error)
        return
    assert np.isfinite(data.ratings["rating"]).all() and len(data.ratings)
    assert set(data.ratings["movie"]) <= set(data.movies["movie"])


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
    """A byte-order mark, quotes, a title of thousands of characters and movies without genres are in all of them."""
    rows, refused = ODD[name]
    movies = write_dat(tmp_path / "dat", tiny_ratings()[:1]) / "movies.dat"
    lines = [line.split("::") for line in movies.read_text(encoding="latin-1").splitlines()]
    lines[0][1] = "Long " * 1000 + "(1960)"
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


# --- bad flags -----------------------------------------------------------------------------------

WORDS = ["", " ", "0", "1", "2", "-1", "0.5", "nan", "inf", "-inf", "1e309", "ü", "x" * 300, "..", "nowhere", "1,2"]
WORDS += ["%s", "\n", "--", "9" * 30, "none", "time", "leave-one-out", "autoencoder", "transformer", "gru", "csv"]
LONG_WORK = ("epochs", "ensemble", "layers", "repeats", "ratings", "users", "movies")  # more of it is no fault


@settings(fuzzed, max_examples=min(EXAMPLES, 600))
@given(data=st.data())
def test_no_flag_ends_in_a_traceback(tmp_path, monkeypatch, places, tiny_run, data):
    monkeypatch.chdir(tmp_path)
    name, (main, fields, base) = data.draw(st.sampled_from(sorted(flags_of(places, tiny_run, tmp_path).items())))
    given_flags = []
    for field in data.draw(st.lists(st.sampled_from(fields), min_size=1, max_size=3, unique=True)):
        words = [word for word in WORDS if not (field in LONG_WORK and len(word) > 5)]
        values = data.draw(st.lists(st.sampled_from(words), max_size=3))
        given_flags += ["--" + field.replace("_", "-"), *values]
    done = Script(main, *base, *given_flags)
    assert done.ended() in (0, 1, 2), (name, given_flags, done.said)
    assert "Traceback" not in done.said, (name, given_flags, done.said)


def flags_of(places: tuple, run: Path, folder: Path) -> dict[str, tuple]:
    """Each script's main, its flags, and some that make it quick."""
    shutil.rmtree(folder / "run", ignore_errors=True)
    shutil.rmtree(folder / "made", ignore_errors=True)
    quick = ("--preset", "ncf", "--epochs", 1, "--embedding", 4, "--hidden", 8, 4)
    made = ("--users", 5, "--movies", 90, "--ratings", 110, "--output", folder / "made")
    return {
        "train": (train.main, names(train), (*places, "--run", folder / "run", *quick)),
        "generate": (generate_recommendation.main, names(generate_recommendation), ("--run", run)),
        "synthetic": (synthetic.main, names(synthetic), made),
        "loss": (loss_ananlyze.main, names(loss_ananlyze), ("--run", run, "--output", folder / "loss.png")),
        "calibration": (calibration.main, names(calibration), ("--run", run, "--output", folder / "calibration.png")),
    }


def names(module: object) -> list[str]:
    return [name for name in module.Settings.__dataclass_fields__ if name != "device"]
