"""Files and run folders: whole or not at all, one training at a time, finished only with their last file."""

import os
import re
import stat
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils import runs
from utils.files import UserError, atomic_dir, atomic_write, read_json, text_hash, write_json, write_table

# --- atomic writing ------------------------------------------------------------------------------


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    target = tmp_path / "new" / "figures.csv"
    with atomic_write(target) as temporary:
        temporary.write_text("old")
        assert not target.exists()
    with pytest.raises(RuntimeError), atomic_write(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old" and list(target.parent.iterdir()) == [target]


def test_a_written_file_has_the_usual_permissions(tmp_path):
    (tmp_path / "plain").touch()
    with atomic_write(tmp_path / "written") as temporary:
        temporary.write_text("x")
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "written")}
    assert len(modes) == 1


@pytest.mark.skipif(not Path("/dev/null").exists(), reason="no devices in the file system")
def test_a_device_is_written_to_and_not_replaced():
    with atomic_write(Path("/dev/null")) as temporary:
        assert temporary == Path("/dev/null")
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    target = tmp_path / "data"
    with pytest.raises(RuntimeError), atomic_dir(target) as temporary:
        (temporary / "half").touch()
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with atomic_dir(target) as temporary:
        (temporary / "whole").touch()
        assert not target.exists()
    assert [path.name for path in target.iterdir()] == ["whole"] and list(tmp_path.iterdir()) == [target]


def test_json_that_is_none_is_named(tmp_path):
    write_json(tmp_path / "one.json", {"ü": [1, None]})
    assert read_json(tmp_path / "one.json") == {"ü": [1, None]}
    (tmp_path / "two.json").write_text('{"a": ')
    with pytest.raises(UserError, match=r"two\.json is not valid JSON"):
        read_json(tmp_path / "two.json")


texts = st.lists(st.text(alphabet="ab", max_size=3), max_size=4)


@given(texts, texts)
def test_only_equal_lists_of_texts_have_one_hash(one, other):
    assert (text_hash(*one) == text_hash(*other)) == (one == other)


# --- run folders ---------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """The folder of all runs."""
    monkeypatch.setattr(runs, "RUNS", tmp_path)
    return tmp_path


def finish(run: Path, name: str, seconds: int) -> Path:
    """Finish a run at this time."""
    run.mkdir()
    (run / name).touch()
    os.utime(run / name, (seconds, seconds))
    return run


def test_a_new_run_never_takes_a_folder_that_is_there(folder):
    assert runs.create_run(folder / "a" / "b") == folder / "a" / "b"
    with pytest.raises(UserError, match="already there: name another folder with --run"):
        runs.create_run(folder / "a" / "b")
    made = runs.create_run(runs.new_run("ncf"))
    assert made.is_dir() and made.parent == folder and re.fullmatch(r"\d{8}-\d{6}-ncf", made.name)


def test_a_run_is_written_by_one_training_at_a_time(folder):
    another = pytest.raises(UserError, match="Another training is writing into")
    with runs.run_lock(folder), another, runs.run_lock(folder):
        pass
    with runs.run_lock(folder):
        pass
    assert [path.name for path in folder.iterdir()] == [".lock"]


def test_a_run_is_not_discarded_while_a_training_writes_into_it(tmp_path):
    folder = runs.create_run(tmp_path / "run")
    with runs.run_lock(folder), pytest.raises(UserError, match="Another training is writing"):
        runs.discard(folder)
    assert folder.is_dir()
    runs.discard(folder)
    assert not folder.exists()


def test_the_newest_finished_run_is_taken(folder):
    with pytest.raises(UserError, match="no finished run in runs/"):
        runs.finished_run(None)
    old = finish(folder / "z-old", runs.TEST_METRICS, 1000)
    with pytest.raises(UserError, match=r"no finished run with test_predictions\.csv in runs/"):
        runs.finished_run(None, holding="test_predictions.csv")
    new = finish(folder / "a-new", runs.TEST_METRICS, 2000)
    (folder / "unfinished").mkdir()
    assert runs.finished_run(None) == new and runs.finished_runs() == [old, new]
    final = finish(folder / "final", runs.FINAL, 3000)
    assert runs.finished_run(None) == final and runs.finished_run(None, tested=True) == new
    assert runs.finished_run(old) == old
    with pytest.raises(UserError, match="has no test: name the run that it was made from"):
        runs.finished_run(final, tested=True)
    with pytest.raises(UserError, match="holds no finished run"):
        runs.finished_run(folder / "unfinished")


def test_missing_values_of_a_table_are_empty(tmp_path):
    write_table(tmp_path / "t.csv", pd.DataFrame([{"a": 1, "b": "ü"}, {"a": 2}]))
    assert (tmp_path / "t.csv").read_bytes() == "a,b\n1,ü\n2,\n".encode()
