"""Devices that can do less than a CPU: models compute without float64, and on the CPU what a device lacks."""

import pytest
import torch
from helpers import SMALL, train_here
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from Models.checkpoint import load_model, place
from Models.configs import PRESETS
from Models.dataLoader import make_loader
from Models.Recommender import NCFConfig
from utils.files import Note


class NoFloat64(TorchDispatchMode):
    """Refuses float64, as Apple's GPUs do."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        for one in tree_flatten((args, kwargs, found))[0]:
            if isinstance(one, torch.Tensor) and one.dtype == torch.float64:
                raise TypeError(f"{function} has float64: MPS can't")
        return found


def test_the_emulation_sees_float64():
    with pytest.raises(TypeError, match="MPS can't"), NoFloat64():
        torch.ones(1).double()


@pytest.mark.parametrize("preset", [name for name in PRESETS if name != "history"])
def test_models_compute_without_float64(data, places, tmp_path, preset):
    """Training step, predictions, scores and vectors; the history model runs on the CPU instead."""
    run = train_here(*places, "--run", tmp_path / "run", "--preset", preset, "--epochs", 1, *SMALL[preset])
    saved = load_model(run / "best.pt", torch.device("cpu"))
    model, history = saved.model, saved.ratings.history
    batch = next(iter(make_loader(data, torch.arange(60).numpy(), 60, 0, model.batching)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model.train()  # EASE is solved on the CPU, whatever the device
    with NoFloat64():
        model(batch).loss.backward()
        optimizer.step()
        model.eval()
        with torch.inference_mode():
            model.score(history.pad(torch.arange(5)))
            model.movie_vectors()
            if model.config.task == "rating":
                model.predict(batch, history)


def test_the_history_model_runs_on_the_cpu_where_a_device_lacks_its_algebra(tiny_run, places, tmp_path):
    run = train_here(*places, "--run", tmp_path / "run", "--preset", "history", "--epochs", 1, *SMALL["history"])
    with pytest.warns(Note, match="HistoryRecommender needs operations that mps lacks: it runs on the CPU"):
        model = load_model(run / "best.pt", torch.device("mps")).model
    assert next(model.parameters()).device.type == "cpu"


def test_other_models_go_where_they_are_sent(tiny_run):
    model = load_model(tiny_run / "best.pt", torch.device("cpu")).model
    assert isinstance(model.config, NCFConfig)
    assert next(place(model, torch.device("meta")).parameters()).device.type == "meta"
