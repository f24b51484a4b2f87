"""Checkpoints: plain data, models that score by themselves, and refusal of files that are not our checkpoints."""

import dataclasses
import shutil

import numpy as np
import pytest
import torch
from helpers import RATIOS, Evil, batch_of, random_model, tiny_ratings

from Models import checkpoint
from Models.Autoencoder import AutoencoderConfig
from Models.checkpoint import (
    build_model,
    describe_data,
    describe_model,
    load_model,
    read_checkpoint,
    save_checkpoint,
)
from Models.Content import ContentConfig
from Models.features import FeatureConfig
from Models.HistoryRecommender import HistoryConfig
from Models.Original import OriginalConfig
from Models.RankingRecommender import RankingNCFConfig
from Models.ratings_data import model_inputs, split_rows
from Models.Recommender import NCFConfig
from Models.Sequential import SequentialConfig
from utils.files import UserError

CPU = torch.device("cpu")
CONFIGS = {
    "ncf": NCFConfig(embedding_dim=4, hidden_dim=5),
    "original": OriginalConfig(embedding_dim=4, hidden_dims=(8, 4, 3)),
    "ncf-ranking": RankingNCFConfig(embedding_dim=4, hidden_dim=5),
    "history": HistoryConfig(embedding_dim=4, hidden_dim=5, context=("time",)),
    "transformer": SequentialConfig(embedding_dim=4, max_length=6),
    "gru": SequentialConfig(architecture="gru", embedding_dim=4, max_length=6),
    "autoencoder": AutoencoderConfig(embedding_dim=4),
    "content": ContentConfig(),
}


@pytest.fixture(scope="module")
def split(data):
    return split_rows(data, "random", RATIOS)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_checkpoint_gives_back_the_model_the_ids_and_the_known_ratings(data, split, tmp_path, name):
    model = random_model(data, split.train, CONFIGS[name], shuffled=("title",))
    torch.manual_seed(0)  # to shuffle the titles as the model did
    _, inputs = model_inputs(data, split.train, FeatureConfig(shuffled=("title",)))
    content = {"state": model.state_dict()} | describe_data(data, split) | describe_model(model, inputs)
    save_checkpoint(tmp_path / "best.pt", content)
    saved = load_model(tmp_path / "best.pt", CPU)
    assert saved.model.config == model.config and saved.model.stats == model.stats and not saved.model.training
    history = data.history(split.train)
    with torch.inference_mode():
        users = torch.arange(30)
        assert torch.equal(saved.model.score(history.pad(users)), model.score(history.pad(users)))
        if model.config.task == "rating":
            batch = batch_of(data, split.test)
            assert torch.equal(saved.model.predict(batch, history), model.predict(batch, history))
    for found, rows in ((saved.ratings.history, np.arange(len(data.user))), (saved.ratings.training(), split.train)):
        assert all(torch.equal(column, vars(data.history(rows))[part]) for part, column in vars(found).items())


def test_a_checkpoint_of_a_training_is_complete(tiny_run):
    saved = load_model(tiny_run / "best.pt", CPU)
    rated = {u: {row[1] for row in tiny_ratings() if row[0] == u} for u in (1, 4)}
    assert saved.ids.user_ids[:2] == [1, 4] and saved.ids.dataset == "tiny"
    padded = saved.ratings.history.pad(torch.tensor([0, 1]))
    for index, user in enumerate(rated):
        assert {saved.ids.movie_ids[i] for i in padded.row(index).movie[0].tolist()} == rated[user]
    assert "Misérables, Les (1995)" in saved.ids.titles and saved.ids.genres[-1] == ""
    assert saved.model.score(padded.row(0)).shape == (1, 27)


# --- what is refused -----------------------------------------------------------------------------


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path):
    torch.save({"state": Evil(tmp_path / "made")}, tmp_path / "evil.pt")
    with pytest.raises(UserError, match="can be read safely"):
        read_checkpoint(tmp_path / "evil.pt")
    assert not (tmp_path / "made").exists()
    torch.load(tmp_path / "evil.pt", weights_only=False)
    assert (tmp_path / "made").exists()


def test_a_damaged_or_missing_checkpoint_is_refused(tiny_run, tmp_path):
    (tmp_path / "half.pt").write_bytes(b"PK\x03\x04")
    weights = read_checkpoint(tiny_run / "best.pt")["state"]["users.mean"].numpy().tobytes()
    content = bytearray((tiny_run / "best.pt").read_bytes())
    content[content.index(weights)] ^= 1
    (tmp_path / "flipped.pt").write_bytes(content)
    for name in ("half.pt", "flipped.pt"):
        with pytest.raises(UserError, match="can be read safely"):
            read_checkpoint(tmp_path / name)
    with pytest.raises(UserError, match="There is no checkpoint"):
        read_checkpoint(tmp_path / "none.pt")


@pytest.mark.parametrize("part", ["stats", "config", "ids", "state", "known", "model"])
def test_a_checkpoint_of_another_version_is_refused(tiny_run, tmp_path, part):
    """It lacks a part, has a field too many, or gives sizes that the weights do not have."""
    content = read_checkpoint(tiny_run / "best.pt")
    others = [{name: value for name, value in content.items() if name != part}]
    if part == "model":
        others.append(content | {"model": "Ensemble"})
    elif part == "stats":
        others.append(content | {"stats": content["stats"] | {"n_users": content["stats"]["n_users"] + 1}})
    else:
        others.append(content | {part: content[part] | {"of_another_version": 1}})
    for other in others:
        torch.save(other, tmp_path / "other.pt")
        with pytest.raises(UserError, match="does not fit this code"):
            load_model(tmp_path / "other.pt", CPU)


def test_memory_that_runs_out_is_no_fault_of_the_checkpoint(tiny_run, monkeypatch):
    def fails(*parts):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(checkpoint, "build_model", fails)
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        load_model(tiny_run / "best.pt", CPU)


def test_data_that_does_not_suit_a_model_is_explained(data, split):
    stats, inputs = model_inputs(data, split.train, FeatureConfig())
    with pytest.raises(UserError, match="50,000 movies: take --preset ncf-ranking"):
        build_model(ContentConfig(), dataclasses.replace(stats, n_movies=50_000), inputs)


def test_saving_keeps_the_old_file_until_the_new_one_is_whole(tiny_run, tmp_path, monkeypatch):
    path = tmp_path / "best.pt"
    shutil.copy(tiny_run / "best.pt", path)
    before = path.read_bytes()

    def full_disk(content, target):
        target.write_bytes(b"half")
        raise RuntimeError("PytorchStreamWriter failed writing file")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(OSError, match="could not be written whole"):
        save_checkpoint(path, {"state": load_model(path, CPU).model.state_dict()})
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
