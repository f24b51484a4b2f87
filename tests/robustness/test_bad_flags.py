"""Bad flags: random flags with odd values never end in a traceback or a hang, in any script."""

import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import pytest
from forked import SCRIPTS, SOAK, Script, explanation, fork_commands
from helpers import ROOT, SMALL
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

import train
from Models.configs import PRESETS
from resultAnalyze.tables import SECTIONS
from utils.files import read_json

NUMBERS = ["0", "1", "2", "3", "0.5", "1e-9", "-1", "nan", "inf", "-inf", "1e309", "9" * 30]
WORDS = [*NUMBERS, "", " ", "ü", "x" * 300, ".", "..", "nowhere", "README.md", "1,2", "%s", "\n", "--"]
LONG_WORK = ("--epochs", "--num-layers", "--repeats", "--ratings", "--users", "--movies")  # large values only take time


@dataclass(frozen=True)
class Flag:
    """A flag as the user writes it, and the type of its value, ignoring its limits."""

    name: str
    type: Any


def flags_of(config: Any) -> Iterator[Flag]:
    """The flags of a script whose settings have these defaults, including those of nested settings."""
    types = get_type_hints(type(config))
    hints = get_type_hints(type(config), include_extras=True)
    for field in fields(config):
        value = getattr(config, field.name)
        if is_dataclass(value):
            yield from flags_of(value)
        elif not any(map(is_dataclass, get_args(types[field.name]))):  # else optional settings that the preset lacks
            given = [mark.name for mark in getattr(hints[field.name], "__metadata__", ()) if hasattr(mark, "name")]
            name = next(filter(None, given), field.name)
            yield Flag("--" + name.replace("_", "-"), types[field.name])


def draw_flags(data: st.DataObject, flags: list[Flag]) -> list[str]:
    """One to three flags with their values, as the words of a command line."""
    drawn = data.draw(st.lists(st.sampled_from(flags), min_size=1, max_size=3, unique=True))
    return [word for flag in drawn for word in data.draw(words_of(flag))]


def words_of(flag: Flag) -> st.SearchStrategy[list[str]]:
    """A flag, usually with odd values of the right number and type, sometimes with any values."""
    if flag.type is bool:
        usual = st.sampled_from([[flag.name], [flag.name.replace("--", "--no-", 1)]])
    else:
        usual = fitting_values(flag).map(lambda values: [flag.name, *values])
    anything = st.lists(st.sampled_from(odd_words(flag)), max_size=3).map(lambda values: [flag.name, *values])
    return st.integers(0, 7).flatmap(lambda n: usual if n else anything)


def odd_words(flag: Flag) -> list[str]:
    return [word for word in WORDS if flag.name not in LONG_WORK or len(word) < 6]


def fitting_values(flag: Flag) -> st.SearchStrategy[list[str]]:
    types = {flag.type, *get_args(flag.type)} | {inner for outer in get_args(flag.type) for inner in get_args(outer)}
    choices = sorted(choice for choice in types if isinstance(choice, str))
    words = odd_words(flag)
    numbers = [word for word in words if word in NUMBERS]
    value = st.sampled_from(choices or (numbers if types & {int, float} else words))
    if get_origin(flag.type) is tuple and Ellipsis not in get_args(flag.type):
        least = most = len(get_args(flag.type))
    else:
        least, most = 1, 3 if get_origin(flag.type) is tuple else 1
    return st.lists(value, min_size=least, max_size=most)


# --- the scripts ---------------------------------------------------------------------------------


def fuzzed(quick: int, soak: int) -> settings:
    checks = [HealthCheck.function_scoped_fixture]
    return settings(max_examples=soak if SOAK else quick, deadline=None, suppress_health_check=checks)


@pytest.mark.parametrize("name", [name for name in SCRIPTS if name != "train"])
@fuzzed(quick=8, soak=150)
@given(data=st.data())
def test_no_flag_ends_in_a_traceback(home, places, tiny_run, tiny_encoder, name, data):
    empty(home)
    declared = SCRIPTS[name].Request if name == "generate_recommendation" else SCRIPTS[name].Settings
    arguments = draw_flags(data, list(flags_of(declared())))
    run_with(name, *quick_flags(places, tiny_run, tiny_encoder, home)[name], *arguments)


@fuzzed(quick=28, soak=450)
@given(data=st.data())
def test_no_flag_of_a_training_ends_in_a_traceback(home, places, data):
    """The flags are mostly those of the preset in use, sometimes of any; those of another model are wrong usage."""
    empty(home)
    preset = data.draw(st.sampled_from(sorted(PRESETS)))
    flags = list(flags_of(PRESETS[preset]))
    if data.draw(st.integers(0, 7)) == 0:
        flags = list(dict.fromkeys(flag for config in PRESETS.values() for flag in flags_of(config)))
    quick = (*places, "--run", home / "run", "--preset", preset, "--epochs", 1, *SMALL[preset])
    run_with("train", *quick, *draw_flags(data, flags))


def test_a_benchmark_without_data_is_explained(home, places):
    """The fault occurs in a training in another process."""
    arguments = ("--data", home / "nowhere", *places[2:], "--only", "lists", "--output", home / "benchmark.json")
    explanation(Script(SCRIPTS["benchmark"].main, *arguments, before=fork_commands))


def test_an_ablation_without_seeds_is_explained(home, places):
    done = Script(SCRIPTS["ablation"].main, *places, "--output", home / "table", "--seeds")
    assert done.wait() in (1, 2) and "Traceback" not in done.output and "--seeds" in done.output, done.output


def test_attention_heads_must_divide_the_embedding(home, places):
    sizes = ("--preset", "transformer", "--embedding-dim", 4, "--num-heads", 3)
    done = Script(train.main, *places, "--run", home / "run", *sizes)
    assert done.wait() in (1, 2) and "Traceback" not in done.output, done.output
    assert "--num-heads" in done.output


DIVERGED = [("--lr", "inf"), ("--lr", "1e30"), ("--weight-decay", "1e38", "--epochs", "2")]
DIVERGED += [("--preset", "history", "--lr", "1000", "--epochs", "6")]  # until no covariance can be factorised


@pytest.mark.parametrize("flags", DIVERGED, ids=" ".join)
def test_a_diverged_training_is_explained(home, places, flags):
    """With one step per epoch, the validation after it or the loss of the next step is not finite."""
    done = Script(train.main, *places, "--run", home / "run", "--epochs", 1, *flags)
    assert done.wait() in (1, 2) and "Traceback" not in done.output, done.output
    assert not (home / "run" / "test_metrics.json").exists()


@pytest.mark.parametrize("presets", [("--preset=gru", "--preset", "ncf"), ("--preset", "gru", "--preset=ncf")])
def test_the_last_preset_counts(home, places, presets):
    done = Script(train.main, *places, "--run", home / "run", *presets, "--epochs", 1, *SMALL["ncf"])
    assert done.wait() == 0, done.output
    config = read_json(home / "run" / "config.json")["config"]
    assert config["preset"] == "ncf" and "hidden_dim" in config["model"]


def test_the_flags_of_nested_settings_are_drawn():
    names = {preset: {flag.name for flag in flags_of(config)} for preset, config in PRESETS.items()}
    assert all({"--data", "--preset", "--lr", "--blocks", "--resume"} <= found for found in names.values())
    assert "--hidden-dims" in names["original"] and "--hidden-dims" not in names["history"]
    assert "--relevance-threshold" in names["autoencoder"] and "--relevance-threshold" not in names["ncf"]
    assert not any({"--model", "--ranking", "--folder"} & found for found in names.values())


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """The scripts' current folder, and the only one that they may write to."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def empty(home: Path) -> None:
    """Remove what the last example left, and restore the documents that scripts rewrite."""
    for path in home.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.copy(ROOT / "README.md", home / "README.md")
    marks = [f"<!-- {name}: made by resultAnalyze/tables.py -->\n<!-- end of {name} -->\n" for name in SECTIONS]
    (home / "results.md").write_text("".join(marks))


def run_with(name: str, *arguments: object) -> None:
    done = Script(SCRIPTS[name].main, *arguments, before=without_network)
    event(f"{name} ends with {done.wait()}")  # pytest --hypothesis-show-statistics counts them
    assert done.process.exitcode in (0, 1, 2), (arguments, done.output)
    assert "Traceback" not in done.output, (arguments, done.output)


def without_network() -> None:
    """Cut off the network, for pip too; other scripts are forked."""
    socket.socket.connect = socket.getaddrinfo = unreachable
    fork_commands(otherwise=unreachable)


def unreachable(*arguments: Any, **options: Any) -> None:
    raise OSError("Network is unreachable")


def quick_flags(places: tuple, run: Path, encoder: Path, home: Path) -> dict[str, tuple]:
    """For each script except train.py, flags that make it quick and let it write only into `home`."""
    output = ("--seeds", 0, "--output", home / "table")
    return {
        "main": (*places, "--offline", "--encoder", "none-here"),
        "generate_recommendation": ("--run", run),
        "BERT": (*places[:2], "--features", home / "movie_bert_dict.pkl", "--encoder", encoder),
        "download": ("--name", "ml-100k", "--to", home),
        "metadata": (*places[:2], "--output", home / "metadata.csv"),
        "synthetic": ("--users", 5, "--movies", 90, "--ratings", 110, "--output", home / "made"),
        "loss_ananlyze": ("--run", run, "--output", home / "loss.png"),
        "calibration": ("--run", run, "--output", home / "calibration.png"),
        "compare_baselines": (*places, *output, "--models", "most popular", "user + movie bias"),
        "ablation": (*places, *output, "--epochs", 1),
        "benchmark": (*places, "--only", "reading", "--repeats", 1, "--output", home / "benchmark.json"),
        "tables": ("--document", home / "results.md"),
        "report": ("--run", run, "--output", home / "report.html"),
        "demo": ("--run", run, "--output", home / "demo.html"),
        "blend": ("--runs", run, run, "--output", home / "blend"),
        "compare_rectools": (*places, "--python", home / "no-python", "--output", home / "rectools"),
    }
