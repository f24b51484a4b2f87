"""Bad flags: random flags with odd values never end in a traceback or a hang, in any script."""

import shutil
import socket
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import pytest
from conftest import ROOT
from forked import SCRIPTS, SOAK, Script, commands_are_forked
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

NUMBERS = ["0", "1", "2", "0.5", "1e-9", "-1", "nan", "inf", "-inf", "1e309", "9" * 30]
WORDS = [*NUMBERS, "", " ", "ü", "x" * 300, ".", "..", "nowhere", "README.md", "1,2", "%s", "\n", "--"]
LONG_WORK = ("epochs", "ensemble", "layers", "repeats", "ratings", "users", "movies")  # more of it is no fault


@pytest.mark.parametrize("name", SCRIPTS)
@settings(max_examples=150 if SOAK else 8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_flag_ends_in_a_traceback(tmp_path, places, tiny_run, tiny_encoder, monkeypatch, name, data):
    home = tmp_path / "home"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir()
    monkeypatch.chdir(home)
    hints = get_type_hints(SCRIPTS[name].Settings)
    flags = []
    for field in data.draw(st.lists(st.sampled_from(sorted(hints)), min_size=1, max_size=3, unique=True)):
        flags += ["--" + field.replace("_", "-"), *data.draw(values(field, hints[field]))]
    base = quick(places, tiny_run, tiny_encoder, home)[name]
    done = Script(SCRIPTS[name].main, *base, *flags, before=alone)
    event(f"{name} ends with {done.ended()}")  # pytest --hypothesis-show-statistics counts them
    assert done.process.exitcode in (0, 1, 2), (flags, done.said)
    assert "Traceback" not in done.said, (flags, done.said)


def values(field: str, hint: Any) -> st.SearchStrategy[list[str]]:
    """Mostly as many values as the flag takes and of its kind, if odd ones; sometimes anything."""
    kinds = {hint, *get_args(hint)} | {choice for kind in get_args(hint) for choice in get_args(kind)}
    choices = sorted(kind for kind in kinds if isinstance(kind, str))
    words = [word for word in WORDS if field not in LONG_WORK or len(word) < 6]
    numbers = [word for word in words if word in NUMBERS]
    fitting = st.sampled_from(choices or (numbers if kinds & {int, float} else words))
    if hint is bool:
        least = most = 0
    elif get_origin(hint) is tuple and Ellipsis not in get_args(hint):
        least = most = len(get_args(hint))
    else:
        least, most = 1, 3 if get_origin(hint) in (list, tuple) else 1
    usual = st.lists(fitting, min_size=least, max_size=most)
    anything = st.lists(st.sampled_from(words), max_size=3)
    return st.integers(0, 7).flatmap(lambda n: usual if n else anything)


def alone() -> None:
    """No network, for pip neither, and other scripts are forked."""
    socket.socket.connect = socket.getaddrinfo = unreachable
    commands_are_forked(otherwise=unreachable)


def unreachable(*arguments: Any, **options: Any) -> None:
    raise OSError("Network is unreachable")


def quick(places: tuple, run: Path, encoder: Path, home: Path) -> dict[str, tuple]:
    """For each script, flags that make it quick and let it write into `home` alone."""
    shutil.copy(ROOT / "README.md", home / "README.md")
    small = ("--preset", "ncf", "--epochs", 1, "--embedding", 4, "--hidden", 8, 4)
    table = ("--seeds", 0, "--output", home / "table")
    return {
        "main": (*places, "--offline", "--encoder", "none-here"),
        "train": (*places, "--run", home / "run", *small),
        "generate_recommendation": ("--run", run),
        "BERT": (*places[:2], "--features", home / "movie_bert_dict.pkl", "--encoder", encoder),
        "download": ("--name", "ml-100k", "--to", home),
        "synthetic": ("--users", 5, "--movies", 90, "--ratings", 110, "--output", home / "made"),
        "loss_ananlyze": ("--run", run, "--output", home / "loss.png"),
        "calibration": ("--run", run, "--output", home / "calibration.png"),
        "compare_baselines": (*places, *table, "--models", "most popular", "user + movie bias"),
        "ablation": (*places, *table, "--epochs", 1),
        "benchmark": (*places, "--only", "reading", "--repeats", 1, "--output", home / "benchmark.json"),
        "readme_results": ("--readme", home / "README.md"),
    }
