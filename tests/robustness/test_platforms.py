"""Other machines: screens that can't show every character, folders of any name, and what Windows lacks or refuses."""

import ast
import csv
import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ROOT, TINY_TRAINING, main_here, recommend_here, tiny_ratings, train_here, write_dat

from resultAnalyze import experiment, loss_ananlyze
from utils import BERT
from utils.files import atomic_dir, atomic_write, read_json, write_json
from utils.pickles import read_pickle, write_pickle

FOLDERS = (".", "Models", "Models/evaluation", "Models/inference", "Models/training", "utils", "resultAnalyze")
SOURCES = sorted(path for folder in FOLDERS for path in (ROOT / folder).glob("*.py"))
WHOLE_CATALOGUE = ("--top-n", 27, "--include-seen")  # includes "Misérables, Les (1995)"
SCRIPTS = "Фильмы 电影 🎬"  # a folder's name in Cyrillic, Chinese and emoji, with spaces
# An ASCII screen and, on Linux, an ASCII file system: folder names reach Python as bytes that it can't decode.
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}


# Runs commands one after the other in one process, which saves their start-up times.
RUN_ALL = """
import runpy, sys
sys.path[0], *words = sys.argv[1:]
while words:
    end = words.index("then")
    sys.argv, words = words[:end], words[end + 1 :]
    runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run_all(variables: dict[str, str], *commands: tuple) -> str:
    """Run the user's commands with these environment variables; returns all that they print to the screen."""
    words = [str(word) for script, *arguments in commands for word in (ROOT / script, *arguments, "then")]
    process = [sys.executable, "-c", RUN_ALL, str(ROOT), *words]
    done = subprocess.run(process, env={**os.environ, **variables}, capture_output=True, encoding="utf-8", timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# --- screens -------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["ascii", "cp1251"])
def test_a_screen_shows_what_it_can(tiny_run, encoding):
    forms = [("--run", tiny_run, "--format", form, *WHOLE_CATALOGUE) for form in ("text", "json", "csv", "ids")]
    expected = [recommend_here(*flags) for flags in forms]
    assert ["Misérables" in text for text in expected] == [True, True, True, False]
    variables = {"PYTHONUTF8": "0", "PYTHONIOENCODING": encoding}
    shown = run_all(variables, *(("generate_recommendation.py", *flags) for flags in forms))
    expected[1] = expected[1].replace("é", "\\u00e9")  # which JSON reads as é
    assert shown == "".join(expected).replace("é", "?")


def test_an_error_is_shown_on_any_screen(run_script, monkeypatch):
    for name, value in ASCII.items():
        monkeypatch.setenv(name, value)
    done = run_script("generate_recommendation.py", "--run", "Amélie 电影", code=1)
    assert done.stderr.startswith("error: Am") and "holds no finished run: train one" in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="its shells close no streams")
def test_a_closed_screen_stops_no_training(places, tmp_path):
    """Started with `>&-`, as some schedulers do."""
    flags = (*places, *TINY_TRAINING, "--epochs", 1, "--run", tmp_path / "run")
    words = [sys.executable, str(ROOT / "train.py"), *map(str, flags)]
    done = subprocess.run(["sh", "-c", '"$@" >&- 2>&-', "sh", *words], timeout=600)
    assert done.returncode == 0 and (tmp_path / "run/test_metrics.json").is_file()


# --- names of folders ----------------------------------------------------------------------------


def places_in(folder: Path) -> dict[str, Path]:
    """The paths that a chain of commands in a folder reads and writes, each named as oddly as the folder."""
    data = write_dat(folder / folder.name, tiny_ratings())
    features, picture, table = (folder / f"{folder.name}{ending}" for ending in (".pkl", ".png", ".csv"))
    run, final = (folder / f"{kind} {folder.name}" for kind in ("run", "final"))
    return {"data": data, "features": features, "run": run, "final": final, "png": picture, "csv": table}


def commands(at: dict[str, Path], encoder: Path) -> list[tuple]:
    """The user's commands from data to recommendations."""
    data = ("--data", at["data"], "--features", at["features"])
    return [
        ("utils/BERT.py", *data, "--encoder", encoder),
        ("train.py", *data, "--run", at["run"], *TINY_TRAINING, "--epochs", 1),
        ("train.py", "--final", at["run"], "--run", at["final"]),  # finds the data through the run's config.json
        ("resultAnalyze/loss_ananlyze.py", "--run", at["run"], "--output", at["png"]),
        ("generate_recommendation.py", "--run", at["run"], "--format", "csv", "--output", at["csv"], *WHOLE_CATALOGUE),
    ]


def check_written(at: dict[str, Path]) -> None:
    """Check that everything is there, in UTF-8, and that the run names its data as the file system does."""
    assert at["png"].read_bytes().startswith(b"\x89PNG")
    with at["csv"].open(encoding="utf-8", newline="") as file:
        titles = [row["title"] for row in csv.DictReader(file)]
    assert len(titles) == 27 and "Misérables, Les (1995)" in titles
    assert read_json(at["run"] / "config.json")["config"]["data"]["folder"] == str(at["data"])
    assert read_json(at["run"] / "test_metrics.json")["dataset"] == at["data"].name
    assert (at["final"] / "final.json").is_file()


NOT_UTF8 = pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")


@pytest.mark.parametrize(
    ("name", "variables"),
    [
        pytest.param(SCRIPTS.encode(), ASCII, id="scripts-on-ascii"),
        pytest.param(b"caf\xe9 films", {"PYTHONIOENCODING": "utf-8"}, id="not-utf8-on-utf8", marks=NOT_UTF8),
    ],
)
def test_folders_of_any_name_do(tiny_encoder, tmp_path, name, variables):
    at = places_in(tmp_path / os.fsdecode(name))
    assert "?" in run_all(variables, *commands(at, tiny_encoder))
    check_written(at)


@pytest.mark.filterwarnings("ignore:Glyph .* missing from font")  # in the picture's title
def test_folders_in_other_scripts_do(tiny_encoder, tmp_path):
    at = places_in(tmp_path / SCRIPTS)
    features, training, final, picture, recommendation = (words[1:] for words in commands(at, tiny_encoder))
    main_here(BERT, *features)
    train_here(*training)
    train_here(*final)
    main_here(loss_ananlyze, *picture)
    recommend_here(*recommendation)
    check_written(at)


@NOT_UTF8
def test_json_keeps_a_name_that_is_not_utf8(tmp_path):
    name = os.fsdecode(b"caf\xe9")
    write_json(tmp_path / "names.json", ["café", name])
    assert read_json(tmp_path / "names.json") == ["café", name]
    assert b"\xe9" in (tmp_path / "names.json").read_bytes().replace("é".encode(), b"")


# --- Windows -------------------------------------------------------------------------------------


@pytest.fixture
def as_on_windows(monkeypatch) -> list[str]:
    """Refuse what Windows refuses: flushing a file that is open for reading only, renaming or removing an open file.

    Returns the names of the calls that were let through.
    """
    fcntl = pytest.importorskip("fcntl")
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("no list of open files")
    flush, passed = os.fsync, []

    def fsync(handle: int) -> None:
        if fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        passed.append("fsync")
        flush(handle)

    def is_open(path: Path) -> bool:
        return any(link.exists() and link.samefile(path) for link in Path("/proc/self/fd").iterdir())

    def only_if_closed(name: str):
        original = getattr(os, name)

        def call(*paths, **more):
            for path in paths if not more else ():
                if os.path.isfile(path) and is_open(Path(path)):  # noqa: PTH113
                    raise PermissionError(errno.EACCES, "The file is used by another process", str(path))
            passed.append(name)
            return original(*paths, **more)

        return call

    monkeypatch.setattr(os, "fsync", fsync)
    for name in ("replace", "rename", "unlink", "remove"):
        monkeypatch.setattr(os, name, only_if_closed(name))
    return passed


def test_the_emulation_refuses(as_on_windows, tmp_path):
    path = tmp_path / "file"
    path.touch()
    with path.open("rb") as file:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fsync(file.fileno())
        with pytest.raises(PermissionError):
            os.replace(path, tmp_path / "other")  # noqa: PTH105
    assert not {"fsync", "replace"} & set(as_on_windows)


def test_files_are_written_as_windows_demands(as_on_windows, tmp_path):
    for _ in range(2):  # a new file, then one that replaces it
        with atomic_write(tmp_path / "text") as temporary, temporary.open("w", encoding="utf-8") as file:
            file.write("ü")
        write_json(tmp_path / "json", {"ü": 1})
        write_pickle(tmp_path / "pickle", [1, 2])
    with atomic_dir(tmp_path / "folder") as temporary:
        write_json(temporary / "json", [])
    assert as_on_windows.count("fsync") == 7
    assert (tmp_path / "text").read_text(encoding="utf-8") == "ü" and read_json(tmp_path / "folder" / "json") == []
    assert read_json(tmp_path / "json") == {"ü": 1} and read_pickle(tmp_path / "pickle") == [1, 2]
    assert {path.name for path in tmp_path.iterdir()} == {"text", "json", "pickle", "folder"}


def test_a_training_and_recommendations_write_as_windows_demands(as_on_windows, places, tmp_path):
    run = train_here(*places, "--run", tmp_path / "run", *TINY_TRAINING, "--epochs", 2)
    recommend_here("--run", run, "--output", tmp_path / "list.txt")
    assert "fsync" in as_on_windows and (tmp_path / "list.txt").is_file()


# --- sources -------------------------------------------------------------------------------------

# Modules and names that Windows lacks, and the beginnings of paths that only Unix has.
UNIX_MODULES = {"fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "curses", "readline", "syslog", "posix"}
UNIX_NAMES = {
    *("SIGKILL", "SIGHUP", "SIGALRM", "SIGUSR1", "SIGUSR2", "alarm", "setitimer"),
    *("fork", "forkpty", "killpg", "setsid", "getpgid", "getuid", "geteuid", "uname", "sched_getaffinity"),
    *("mkfifo", "getloadavg", "nice", "chown", "getrusage", "wait3", "wait4"),
}
UNIX_PATHS = ("/dev/", "/tmp", "/proc/", "/etc/", "/usr/", "/var/")

every_source = pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))


def nodes_of(source: str, *kinds: type) -> list:
    return [node for node in ast.walk(ast.parse(source)) if isinstance(node, kinds)]


def mode_of(call: ast.Call) -> str | None:
    """The mode of a call of open(), the built-in function or a method; None if it opens no text, as with a ZipFile."""
    named = [word.value for word in call.keywords if word.arg == "mode"]
    places = call.args[:1] if isinstance(call.func, ast.Attribute) else call.args[1:2]
    (mode,) = [*named, *places, ast.Constant("r")][:1]
    return mode.value if isinstance(mode, ast.Constant) else None


def is_without_encoding(call: ast.Call) -> bool:
    """Whether a call reads or writes text in the machine's default encoding."""
    name = ast.unparse(call.func)
    last = name.split(".")[-1]
    given = {word.arg for word in call.keywords}
    if name in ("os.open", "webbrowser.open") or last not in ("open", "read_text", "write_text", "TextIOWrapper"):
        return "text" in given and not given & {"encoding", "errors"}  # the output of a process
    if last in ("read_text", "write_text") and isinstance(call.func, ast.Name):  # our own function
        return False
    if last == "open" and ((mode := mode_of(call)) is None or "b" in mode):
        return False
    return "encoding" not in given


def unix_parts(source: str) -> set[str]:
    """The modules, names and paths in a source file that Windows lacks."""
    imported = {alias.name for node in nodes_of(source, ast.Import) for alias in node.names}
    imported |= {node.module or "" for node in nodes_of(source, ast.ImportFrom)}
    names = {node.attr for node in nodes_of(source, ast.Attribute)}
    names |= {alias.name for node in nodes_of(source, ast.ImportFrom) for alias in node.names}
    texts = {node.value for node in nodes_of(source, ast.Constant) if isinstance(node.value, str)}
    paths = {text for text in texts if text.startswith(UNIX_PATHS)}
    return ({module.split(".")[0] for module in imported} & UNIX_MODULES) | (names & UNIX_NAMES) | paths


@every_source
def test_text_is_read_and_written_in_a_named_encoding(path):
    calls = nodes_of(path.read_text(encoding="utf-8"), ast.Call)
    assert [f"line {call.lineno}: {ast.unparse(call)}" for call in calls if is_without_encoding(call)] == []


# Used where it exists, not needed elsewhere.
OPTIONAL = {"experiment.py": {"/proc/self/status"}}


@every_source
def test_no_source_needs_what_windows_lacks(path):
    assert unix_parts(path.read_text(encoding="utf-8")) - OPTIONAL.get(path.name, set()) == set()


def test_memory_is_told_where_the_system_tells_it(monkeypatch):
    told = experiment.peak_memory()
    assert (told is None) != Path("/proc/self/status").exists() and (told is None or 0.01 < told < 100)
    monkeypatch.setattr(Path, "exists", lambda _: False)
    assert experiment.peak_memory() is None


@pytest.mark.parametrize(
    ("line", "is_bad"),
    [
        ("open('a')", True),
        ("open('a', 'w', encoding='utf-8')", False),
        ("open('a', 'rb')", False),
        ("Path('a').open(mode='a')", True),
        ("Path('a').open('wb')", False),
        ("a.read_text()", True),
        ("a.write_text('x', encoding='utf-8')", False),
        ("read_text(a)", False),
        ("zipped.open(entry)", False),
        ("os.open('a', os.O_RDONLY)", False),
        ("io.TextIOWrapper(a)", True),
        ("subprocess.run(a, text=True)", True),
    ],
)
def test_the_check_of_encodings_finds_them(line, is_bad):
    (call,) = nodes_of(line, ast.Call)[:1]
    assert is_without_encoding(call) == is_bad


@pytest.mark.parametrize("line", ["import fcntl", "from os import fork", "signal.SIGKILL", "open('/dev/null', 'rb')"])
def test_the_check_of_windows_finds_what_it_lacks(line):
    assert unix_parts(line)
