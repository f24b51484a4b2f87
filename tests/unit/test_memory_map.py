"""Memory-mapped ratings: they equal the data set that they were written from, and nothing else is read as one."""

import csv
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers import SMALL, main_here, train_here, write_dat
from hypothesis import given, settings
from hypothesis import strategies as st

from Models.ratings_data import load_data
from resultAnalyze import synthetic
from utils import memory_map, rating_columns
from utils.files import UserError
from utils.readers import read_dataset


def mapped(data: Path, output: Path) -> Path:
    """The folder that the script writes."""
    main_here(memory_map, "--data", data, "--output", output)
    return output


def write_csv(folder: Path, rows: list[tuple], header: str, movies: list[str]) -> Path:
    folder.mkdir()
    text = "".join(",".join(map(str, row)) + "\n" for row in rows)
    (folder / "ratings.csv").write_text(f"{header}\n{text}")
    lines = "".join(f'{movie},"Film, the {movie} (1995)",Drama|War\n' for movie in movies)
    (folder / "movies.csv").write_text("movieId,title,genres\n" + lines)
    return folder


def assert_same_data(folder: Path, of: Path) -> None:
    """The same ratings, by user and time, and the same tables."""
    found, data = read_dataset(folder), read_dataset(of)
    by = [name for name in ("user", "time") if name in data.ratings]
    pd.testing.assert_frame_equal(found.ratings, data.ratings.sort_values(by, kind="stable", ignore_index=True))
    pd.testing.assert_frame_equal(found.movies, data.movies)
    assert isinstance(found.columns.rating.base, np.memmap)


def test_movielens_stays_what_it_is(tiny, tmp_path):
    folder = mapped(tiny, tmp_path / "mapped")
    assert_same_data(folder, of=tiny)
    users = read_dataset(tiny).users.set_index("user")
    pd.testing.assert_frame_equal(read_dataset(folder).users.set_index("user"), users)


@pytest.mark.parametrize("header", ["userId,movieId,rating,timestamp", "userId,movieId,rating", "userId,movieId"])
def test_ids_may_be_words_and_ratings_and_times_may_be_missing(header, tmp_path):
    rows = [("0012", "b", 3.5, 2000), ("12", "a", 1.0, 3000), ("0012", "a", 2.0, 1000), ("x y", "b", 5.0, 1500)]
    width = header.count(",") + 1
    folder = write_csv(tmp_path / "text", [row[:width] for row in rows], header, ["b", "a", "never"])
    assert_same_data(mapped(folder, tmp_path / "mapped"), of=folder)


pairs = st.lists(st.tuples(st.integers(1, 6), st.integers(1, 5)), min_size=1, max_size=30, unique=True)


@settings(max_examples=30, deadline=None)
@given(pairs=pairs, data=st.data())
def test_whatever_the_ratings_and_however_they_are_cut_into_chunks(pairs, data, tmp_path_factory):
    ratings = st.tuples(st.integers(1, 10).map(lambda n: n / 2), st.integers(10**9, 10**9 + 5))
    rows = [(*pair, *data.draw(ratings)) for pair in pairs]
    home = tmp_path_factory.mktemp("home")
    folder = write_csv(home / "text", rows, "userId,movieId,rating,timestamp", list("12345"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rating_columns, "CHUNK", data.draw(st.integers(1, 8)))
        assert_same_data(mapped(folder, home / "mapped"), of=folder)


def test_made_up_ratings_are_the_same_in_both_forms(tmp_path):
    sizes = ("--users", 60, "--movies", 300, "--ratings", 3000)
    text, columns = tmp_path / "text", tmp_path / "columns"
    main_here(synthetic, *sizes, "--output", text)
    main_here(synthetic, *sizes, "--output", columns, "--mapped")
    assert_same_data(columns, of=text)
    assert (text / "truth.json").read_text() == (columns / "truth.json").read_text()


@pytest.mark.parametrize("preset", ["original", "ncf", "transformer"])
def test_trainings_find_what_they_find_from_text(preset, tiny, tiny_features, tmp_path):
    """The small data set's text is in the order of users and times, so that its rows keep their numbers."""
    folder = mapped(tiny, tmp_path / "tiny")
    flags = ("--features", tiny_features, "--preset", preset, *SMALL[preset], "--epochs", 2)
    flags += ("--relevance-threshold", 0, "--split", "leave-one-out") if preset == "transformer" else ()
    found = []
    for data in (tiny, folder):
        run = train_here("--data", data, *flags, "--run", tmp_path / f"{data.parent.name}-run")
        test = json.loads((run / "test_metrics.json").read_text())
        found.append([test, without_seconds(run), (run / "test_predictions.csv").exists()])
        assert ("of rows by user and time" in test["protocol"]) == (data == folder)
        del test["wall_seconds"], test["protocol"]
    assert found[0] == found[1]


def without_seconds(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open() as file:
        return [{name: value for name, value in row.items() if name != "seconds"} for row in csv.DictReader(file)]


def test_who_has_mapped_ratings_keeps_them_when_others_are_written(tiny, tmp_path):
    folder = mapped(tiny, tmp_path / "mapped")
    before = read_dataset(folder).columns
    copy = before.rating.copy()
    other = write_csv(tmp_path / "text", [(1, 1, 0.5), (2, 2, 1.5)], "userId,movieId,rating", ["1", "2"])
    mapped(other, folder)
    assert (before.rating == copy).all() and len(copy) == 360
    assert_same_data(folder, of=other)


def test_genres_may_hold_any_sign(tmp_path):
    folder = tmp_path / "text"
    folder.mkdir()
    (folder / "ratings.csv").write_text("userId,movieId\n1,1\n")
    rows = ['1,A,"[""a|b"", ""x, y""]"', "2,B,", '3,C,"[""(1995)""]"']
    (folder / "movies.csv").write_text("\n".join(["movieId,title,genres", *rows]) + "\n")
    assert_same_data(mapped(folder, tmp_path / "mapped"), of=folder)
    assert read_dataset(folder).movies["genres"].tolist() == [("a|b", "x, y"), (), ("(1995)",)]


def test_reading_takes_no_copy_and_writes_nothing(tiny, tiny_features, tmp_path):
    folder = mapped(tiny, tmp_path / "mapped")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    data = load_data(folder, tiny_features)
    history = data.history()
    assert np.shares_memory(history.time.numpy(), data.time) and len(history.movie) == 360
    history.time[:] = 0  # as a model could
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


# --- faults --------------------------------------------------------------------------------------


def changed(name: str, index: int, value: float):
    """A fault: one number in one column is changed."""

    def change(folder: Path) -> None:
        column = np.memmap(folder / f"ratings_{name}.bin", rating_columns.TYPES[name], "r+")
        column[index] = value
        column.flush()

    return change


def cut(folder: Path) -> None:
    path = folder / "ratings_time.bin"
    path.write_bytes(path.read_bytes()[:-8])


def repeated(folder: Path) -> None:
    column = np.memmap(folder / "ratings_movie.bin", "<i8", "r+")
    column[1] = column[0]
    column.flush()


def tables(change):
    """A fault: the lines of users.csv or movies.csv are changed."""

    def damage(folder: Path, name: str) -> None:
        head, *lines = (folder / name).read_text().splitlines(keepends=True)
        (folder / name).write_text(head + "".join(change(lines)))

    return damage


def described(**changes):
    def change(folder: Path) -> None:
        path = folder / "ratings.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


FAULTS = {
    "a column is missing": (lambda folder: (folder / "ratings_user.bin").unlink(), "does not fit the files beside it"),
    "a column is cut": (cut, "ratings_time.bin has another length"),
    "another number of ratings": (described(n_ratings=361), "has another length"),
    "no number of ratings": (described(n_ratings="many"), "does not fit the files beside it"),
    "no ratings column": (described(columns={"user": "<i8", "movie": "<i8"}), "its columns are not those of ratings"),
    "another type": (
        described(columns={"user": "<i4", "movie": "<i8", "rating": "<f4"}),
        "its columns are not those of ratings",
    ),
    "users in another order": (
        lambda folder: tables(lambda lines: lines[::-1])(folder, "users.csv"),
        "has other ids, or another order of them",
    ),
    "a movie less": (lambda folder: tables(lambda lines: lines[:-1])(folder, "movies.csv"), "has other ids"),
    "a user of no table": (changed("user", 359, 30), "not in its table"),
    "a movie of no table": (changed("movie", 5, 27), "not in its table"),
    "a negative index": (changed("movie", 5, -1), "not in its table"),
    "users out of order": (changed("user", 0, 29), "not sorted by user and time"),
    "times out of order": (changed("time", 1, 0), "not sorted by user and time"),
    "no number": (changed("rating", 7, np.nan), "a rating is not a number"),
    "a movie twice": (repeated, "a user rates a movie more than once"),
}


@pytest.mark.parametrize("chunk", [7, 10**6])
@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_damaged_is_refused(fault, chunk, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(rating_columns, "CHUNK", chunk)
    folder = mapped(tiny, tmp_path / "mapped")
    damage, words = FAULTS[fault]
    damage(folder)
    with pytest.raises(UserError, match=words) as error:
        read_dataset(folder)
    assert "make the folder again with python utils/memory_map.py" in str(error.value)


def test_what_was_not_written_whole_is_no_data_set(tiny, tmp_path, monkeypatch):
    folder = mapped(tiny, tmp_path / "mapped")

    def stopped(chunks):
        yield next(iter(chunks))
        raise KeyboardInterrupt

    whole = memory_map.write_mapped
    monkeypatch.setattr(memory_map, "write_mapped", lambda folder, chunks, *ids: whole(folder, stopped(chunks), *ids))
    with pytest.raises(KeyboardInterrupt):
        mapped(tiny, folder)
    with pytest.raises(UserError, match="is not a known data set"):
        read_dataset(folder)


@pytest.mark.parametrize("name", ["users.csv", "movies.csv"])
def test_an_id_that_is_listed_twice_is_refused(name, tiny, tmp_path):
    folder = mapped(tiny, tmp_path / "mapped")
    tables(lambda lines: [*lines, lines[0]])(folder, name)
    with pytest.raises(UserError, match="is listed twice"):
        read_dataset(folder)


def test_other_data_is_not_written_over(tiny, tmp_path):
    other = write_dat(tmp_path / "other", [(1, 2, 3, 4)])
    before = {path.name: path.read_bytes() for path in other.iterdir()}
    with pytest.raises(UserError, match=r"holds other data \(ratings.dat\): name another folder"):
        mapped(tiny, other)
    assert {path.name: path.read_bytes() for path in other.iterdir()} == before


def test_the_folder_of_the_data_itself_is_not_written_into(tmp_path, run_script):
    folder = write_dat(tmp_path / "tiny", [(1, 2, 3, 4), (1, 9, 3, 5)])
    before = sorted(path.name for path in folder.iterdir())
    done = run_script("utils/memory_map.py", "--data", folder, "--output", folder, code=1)
    assert "--output is the folder of the data itself: name another one." in done.stderr
    assert sorted(path.name for path in folder.iterdir()) == before


def test_a_data_set_that_cannot_be_read_leaves_an_earlier_one_as_it_was(tiny, tmp_path):
    folder = mapped(tiny, tmp_path / "mapped")
    with pytest.raises(UserError, match="There is no folder"):
        mapped(tmp_path / "typo", folder)
    assert_same_data(folder, of=tiny)
