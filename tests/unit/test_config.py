"""Command lines: each preset has the flags of its model, wrong usage exits with 2, JSON gives back what was written."""

import dataclasses
import json
import re
import typing
from pathlib import Path

import pytest
from helpers import RATIOS, ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from Models.configs import (
    DEFAULT_PRESET,
    MODELS,
    PRESETS,
    DataConfig,
    OptimConfig,
    RankingConfig,
    RunConfig,
    TrainConfig,
    saved_config,
)
from Models.features import FeatureConfig
from Models.Original import OriginalConfig
from Models.Sequential import SequentialConfig
from Models.training.command_line import parse_training
from utils.config import from_json, to_json
from utils.files import UserError

SHARED = (OptimConfig, FeatureConfig, DataConfig, RunConfig)
every_preset = pytest.mark.parametrize("preset", PRESETS)


def parsed(*words: object) -> TrainConfig:
    return parse_training("", [str(word) for word in words])


def refused(capsys, *words: object) -> str:
    """The message of wrong usage, without the box around it."""
    with pytest.raises(SystemExit) as caught:
        parsed(*words)
    assert caught.value.code == 2
    return re.sub(r"[\s│]+", " ", capsys.readouterr().err)


# --- presets -------------------------------------------------------------------------------------


def flags_of(*configs: type) -> set[str]:
    """The flags of the fields of these configs."""
    names = {field.name for config in configs for field in dataclasses.fields(config)}
    renamed = {"folder": "data"}
    return {"--" + renamed.get(name, name).replace("_", "-") for name in names}


@every_preset
def test_help_shows_the_flags_of_the_preset_and_no_others(capsys, preset):
    with pytest.raises(SystemExit) as caught:
        parsed("--preset", preset, "--help")
    assert caught.value.code == 0
    options = capsys.readouterr().out.partition("options")[2]
    shown = set(re.findall(r"^\W*?(--[a-z][a-z0-9-]*)", options.replace("-h, --help", ""), flags=re.MULTILINE))
    config = PRESETS[preset]
    ranking = (RankingConfig,) if config.ranking else ()
    assert shown == flags_of(type(config.model), *SHARED, *ranking) | {"--preset"}


@every_preset
def test_a_flag_of_another_preset_is_wrong_usage(capsys, preset):
    config = PRESETS[preset]
    own = flags_of(type(config.model), *SHARED)
    foreign = flags_of(*MODELS) - own | ({"--relevance-threshold"} if not config.ranking else set())
    assert len(foreign) > 5
    for flag in sorted(foreign):
        assert "Unrecognized options" in refused(capsys, "--preset", preset, flag, 1)


def test_no_config_of_a_model_inherits_another():
    assert all(config.__bases__ == (object,) for config in MODELS)
    assert {type(config.model) for config in PRESETS.values()} == set(MODELS)


@every_preset
def test_a_preset_without_flags_is_its_configuration(preset):
    assert parsed("--preset", preset) == parsed(f"--preset={preset}") == PRESETS[preset]
    assert PRESETS[preset].preset == preset and PRESETS[preset].changes() == {}


def test_the_default_preset_is_the_ncf():
    assert DEFAULT_PRESET == "ncf" and parsed("--seed", 0) == PRESETS["ncf"]
    assert parsed() == PRESETS["ncf"]


def test_the_last_of_several_presets_counts():
    for words in (("--preset", "gru", "--preset", "ncf"), ("--preset=gru", "--preset", "ncf")):
        assert parsed(*words) == PRESETS["ncf"]


def test_the_original_preset_is_the_original_to_the_letter():
    original = parsed("--preset", "original")
    assert original.model == OriginalConfig(embedding_dim=32, hidden_dims=(128, 64), dropout=0.2)
    optim = OptimConfig(epochs=50, batch_size=256, lr=1e-3, weight_decay=0.0, schedule="constant", patience=0)
    assert original.optim == optim and original.ranking is None
    assert original.features == FeatureConfig(blocks=("title", "genres"), unit_titles=False)
    assert (original.data.split, original.data.ratios) == ("random", RATIOS)


def test_flags_beside_a_preset_win():
    original = parsed("--preset", "original")
    found = parsed("--epochs", 3, "--preset", "original", "--dropout", 0, "--hidden-dims", 8, 4, 2, "--split", "time")
    assert found == dataclasses.replace(
        original,
        model=dataclasses.replace(original.model, dropout=0.0, hidden_dims=(8, 4, 2)),
        optim=dataclasses.replace(original.optim, epochs=3),
        data=dataclasses.replace(original.data, split="time"),
    )


def test_changes_are_the_settings_that_are_not_those_of_the_preset():
    assert parsed("--embedding-dim", 32, "--seed", 3, "--data", "elsewhere").changes() == {}
    found = parsed(
        "--embedding-dim", 4, "--hidden-dim", 0, "--blocks", "genres", "--lr", 0.5, "--towers", "ids", "clock"
    )
    changes = {"embedding_dim": 4, "hidden_dim": 0, "blocks": ["genres"], "lr": 0.5, "towers": ["ids", "clock"]}
    assert found.changes() == changes


# --- wrong usage ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--embedding-dim", 0), "error: --embedding-dim '0' is not at least 1 and below 2147483648."),
        (("--epochs", 0), "error: --epochs '0' is not at least 1"),
        (("--batch-size", 2**31), "error: --batch-size '2147483648' is not at least 1 and below 2147483648."),
        (("--preset", "original", "--hidden-dims", 8, 0), "error: --hidden-dims '0' is not at least 1"),
        (("--preset", "original", "--hidden-dims"), "error: --hidden-dims: give the units of at least one layer."),
        (("--preset", "gru", "--dropout", 1), "error: --dropout '1.0' is not at least 0.0 and below 1.0."),
        (("--preset", "gru", "--dropout", "nan"), "error: --dropout 'nan' is not at least 0.0"),
        (("--lr", -0.1), "error: --lr '-0.1' is not a finite number of at least 0.0."),
        (("--lr", "nan"), "error: --lr 'nan' is not a finite number of at least 0.0."),
        (("--lr", "inf"), "error: --lr 'inf' is not a finite number of at least 0.0."),
        (("--bias-precision", "nan"), "error: --bias-precision 'nan' is not a finite number of at least 0.0."),
        (("--seed", -1), "error: --seed '-1' is not at least 0"),
        (("--patience", -1), "error: --patience '-1' is not at least 0"),
        (("--features", ".."), "error: --features '..' is not the name of a file."),
        (("--test-file", "/"), "error: --test-file '/' is not the name of a file."),
        (
            ("--encoding", "0"),
            "error: --encoding '0' is not a text encoding that Python knows, such as utf-8, cp1252 or gbk.",
        ),
        (("--encoding", "base64"), "error: --encoding 'base64' is not a text encoding"),
        (("--preset", "default"), "error: There is no preset 'default': choose from ncf, original, history, "),
        (("--preset",), "error: There is no preset ''"),
        (("--preset", "history", "--history-dropout", "nan"), "error: --history-dropout 'nan' is not at least 0.0"),
        (("--preset", "gru", "--max-length", 0), "error: --max-length '0' is not at least 1"),
        (("--preset", "transformer", "--num-heads", 0), "error: --num-heads '0' is not at least 1"),
        (
            ("--preset", "ncf-ranking", "--temperature", 0),
            "error: --temperature '0.0' is not a finite number of at least 0.01",
        ),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_values_out_of_range_are_refused(capsys, words, message):
    assert message in refused(capsys, *words)


@pytest.mark.parametrize(
    "words",
    [
        ("--epochs", "many"),
        ("--epochs", "1.5"),
        ("--split", "nothing"),
        ("--ratios", "0.5", "0.5"),
        ("--schedule", "linear"),
        ("--device", "abacus"),
        ("--preset", "history", "--context", "weather"),
        ("--preset", "gru", "--architecture", "rnn"),
    ],
    ids=" ".join,
)
def test_values_of_another_type_are_refused(capsys, words):
    flag = words[-2] if len(words) != 3 else words[0]
    assert flag in refused(capsys, *words)


@pytest.mark.parametrize(
    "words", [("--no-such-flag",), ("--epoch", 3), ("--fp16",), ("--objective", "ranking"), ("x",)]
)
def test_unknown_words_are_refused(capsys, words):
    assert "Unrecognized options" in refused(capsys, *words)


def test_attention_heads_share_the_embedding_alike(capsys):
    """Otherwise PyTorch would end with an assertion and a traceback."""
    assert parsed("--preset", "transformer", "--embedding-dim", 6, "--num-heads", 3).model.num_heads == 3
    assert parsed("--preset", "gru", "--embedding-dim", 5).model.embedding_dim == 5  # has no heads
    words = ("--preset", "transformer", "--embedding-dim", 5)
    assert "--num-heads" in refused(capsys, *words)


# --- JSON ----------------------------------------------------------------------------------------


def values_of(hint: typing.Any, old: typing.Any) -> st.SearchStrategy:
    """Values that a field of this type may have."""
    choices = typing.get_args(hint)
    if str in (*choices, *typing.get_args(choices[0] if choices else None)):  # lists of names, or None
        return st.lists(st.text()).map(tuple) | (st.none() if type(None) in choices else st.nothing())
    if isinstance(old, bool):
        return st.booleans()
    if isinstance(old, float):
        return st.floats(0.01, 0.99)
    if isinstance(old, int):
        return st.integers(1, 2**31 - 1) if old else st.just(old)
    if isinstance(old, str):
        return st.sampled_from(choices) if choices else st.text()
    if typing.get_args(choices[0]):
        return st.lists(st.sampled_from(typing.get_args(choices[0]))).map(tuple)
    return st.lists(st.integers(1, 999), min_size=1).map(tuple)


def changed(draw, config: typing.Any) -> typing.Any:
    """A config with some other values."""
    hints = typing.get_type_hints(type(config))
    names = draw(st.sets(st.sampled_from([field.name for field in dataclasses.fields(config)])))
    values = {name: draw(values_of(hints[name], getattr(config, name))) for name in names}
    if "num_heads" in hints:  # the heads must divide the embedding
        heads = values.get("num_heads", config.num_heads)
        values["embedding_dim"] = heads * draw(st.integers(1, min(9, (2**31 - 1) // heads)))
    return dataclasses.replace(config, **values)


@st.composite
def configurations(draw) -> TrainConfig:
    config = PRESETS[draw(st.sampled_from(list(PRESETS)))]
    path = st.sampled_from([Path("/data/ml-1m"), Path("/data/Été 2024/ü.csv")])
    maybe = st.none() | path
    return dataclasses.replace(
        config,
        model=changed(draw, config.model),
        optim=changed(draw, config.optim),
        features=changed(draw, config.features),
        ranking=config.ranking and RankingConfig(draw(st.floats(0, 5))),
        data=DataConfig(folder=draw(path), train_file=draw(maybe), test_file=draw(maybe), ratios=(0.8, 0.0, 0.2)),
        run=RunConfig(run=draw(maybe), final=draw(maybe), seed=draw(st.integers(0, 2**31 - 1))),
    )


@settings(max_examples=100, deadline=None)
@given(configurations())
def test_json_gives_back_the_configuration_that_was_written(config):
    written = json.loads(json.dumps(to_json(config), allow_nan=False))
    assert from_json(PRESETS[config.preset], written) == config


def test_paths_in_json_are_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = to_json(parsed("--data", "ml", "--run", "here"))
    assert (found["data"]["folder"], found["run"]["run"]) == (str(tmp_path / "ml"), str(tmp_path / "here"))


def test_json_of_other_fields_is_refused():
    written = to_json(PRESETS["gru"])
    for part in ("model", "optim", "ranking", "features", "data", "run"):
        for other in ({**written[part], "new": 1}, dict(list(written[part].items())[1:])):
            with pytest.raises(ValueError, match="has other fields"):
                from_json(PRESETS["gru"], {**written, part: other})
        with pytest.raises(ValueError, match="TrainConfig has other fields"):
            from_json(PRESETS["gru"], {name: value for name, value in written.items() if name != part})


def test_what_is_trained_does_not_depend_on_where(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    one = parsed("--data", "ml", "--features", "f.pkl", "--run", "a", "--device", "cpu")
    other = parsed("--data", tmp_path / "ml", "--features", tmp_path / "f.pkl", "--tensorboard")
    assert one.training() == other.training() != parsed("--data", "ml").training()
    for flags in (("--seed", 1), ("--epochs", 3), ("--blocks", "title"), ("--split", "time"), ("--hidden-dim", 5)):
        assert parsed("--data", "ml", "--features", "f.pkl", *flags).training() != one.training()


def test_own_files_are_found_in_the_folder_of_the_data_as_well(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ml").mkdir()
    for name in ("ml/u1.base", "ml/u1.test", "u1.test"):
        (tmp_path / name).touch()
    found = parsed("--data", "ml", "--train-file", "u1.base", "--test-file", "u1.test").data.located()
    assert (found.train_file, found.test_file) == (tmp_path / "ml/u1.base", tmp_path / "u1.test")
    assert found.folder == tmp_path / "ml" and found.located() == found


def test_each_data_folder_has_a_features_file_of_its_own(tmp_path):
    dataset = ROOT / "dataset"
    for flags, expected in (
        ((), dataset / "movie_bert_dict.pkl"),
        (("--data", dataset / "ml-1m"), dataset / "movie_bert_dict.pkl"),
        (("--data", dataset / "ml-100k"), dataset / "ml-100k.pkl"),
        (("--data", tmp_path / "ml-1m"), dataset / "ml-1m.pkl"),
        (("--data", dataset / "ml-100k", "--features", tmp_path / "f.pkl"), tmp_path / "f.pkl"),
    ):
        assert parsed(*flags).data.located().features == expected


# --- runs with a configuration of their own ------------------------------------------------------


@pytest.fixture
def run(tmp_path) -> Path:
    """The folder of a training that was stopped."""
    config = parsed("--preset", "gru", "--embedding-dim", 8, "--seed", 3, "--run", tmp_path / "run")
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.json").write_text(json.dumps({"config": to_json(config)}))
    return tmp_path / "run"


def test_a_resumed_training_has_the_configuration_of_its_run(run):
    found = parsed("--resume", run)
    assert found == parsed(f"--resume={run}")
    assert (
        found.model == SequentialConfig(architecture="gru", num_layers=2, embedding_dim=8, dropout=0.2)
        and found.run.seed == 3
    )
    assert found.run.resume == run and found == dataclasses.replace(saved_config(run), run=found.run)


def test_a_final_training_has_the_configuration_of_its_run_and_a_place_of_its_own(run, tmp_path):
    found = parsed("--final", run, "--run", tmp_path / "final", "--device", "cpu")
    assert found.run == RunConfig(run=tmp_path / "final", final=run, seed=3, device="cpu")
    assert dataclasses.replace(found, run=saved_config(run).run) == saved_config(run)


@pytest.mark.parametrize("flag", ["--resume", "--final"])
def test_a_run_with_its_own_configuration_takes_no_other_flags(run, flag):
    for words in (("--seed", 3), ("--preset", "ncf"), ("--epochs=3",), ("--data", "x")):
        with pytest.raises(UserError, match=f"has its own configuration: leave {words[0].split('=')[0]} out"):
            parsed(flag, run, *words)


def test_a_resumed_training_stays_where_it_is(run):
    for words in (("--run", "x"), ("--device", "cpu"), ("--final", run)):
        with pytest.raises(UserError, match=f"leave {words[0]} out"):
            parsed("--resume", run, *words)


def test_a_finished_training_is_not_resumed(run):
    for name in ("test_metrics.json", "final.json"):
        (run / name).touch()
        with pytest.raises(UserError, match="there is nothing to resume"):
            parsed("--resume", run)
        (run / name).unlink()


def test_a_folder_without_a_training_of_this_version_is_explained(run, tmp_path):
    ncf = to_json(PRESETS["ncf"])
    others = ({"preset": "default"}, {"preset": "gru"}, ncf | {"preset": "gru"}, ncf | {"optim": None}, "ncf", None)
    for content in ({"settings": ncf}, [], *({"config": other} for other in others)):
        (run / "config.json").write_text(json.dumps(content))
        with pytest.raises(UserError, match="another version of this code"):
            parsed("--resume", run)
    (run / "config.json").write_text("{")
    with pytest.raises(UserError, match="is not valid JSON"):
        parsed("--final", run)
    with pytest.raises(UserError, match="holds no training"):
        parsed("--resume", tmp_path / "none")


def test_a_training_of_before_a_flag_of_the_run_is_read(tiny_run, tmp_path):
    record = json.loads((tiny_run / "config.json").read_text())
    del record["config"]["run"]["shard"]
    (tmp_path / "config.json").write_text(json.dumps(record))
    assert saved_config(tmp_path) == saved_config(tiny_run)
