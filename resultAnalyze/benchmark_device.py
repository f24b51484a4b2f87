#!/usr/bin/env python3
"""Train every preset for two epochs on a device, such as a GPU: speed, memory, and how far scores differ from a CPU's.

    python resultAnalyze/benchmark_device.py                      # a GPU if there is one
    python resultAnalyze/benchmark_device.py --device cpu --presets ncf original

The split is random 75/5/20. Each preset trains in single precision, with --amp and, if --compile names it, with
torch.compile. The second epoch is timed, as the first one is a warm-up. Samples are ratings: a step over users counts
their training ratings. The trained model's scores are compared with its scores on the CPU: the largest difference over
all movies for 64 users. Writes resultAnalyze/benchmark_<device>.json after each training.
"""

import dataclasses
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import pandas as pd
import torch
from torch import nn

from Models.checkpoint import build_model, place
from Models.configs import PRESETS, DataConfig, TrainConfig
from Models.dataLoader import make_loader
from Models.evaluation.evaluators import make_evaluator
from Models.inference.recommend import on_device_of
from Models.ratings_data import RatingsData, model_inputs
from resultAnalyze.markdown import markdown_table
from train import parameter_groups, train_epoch
from utils import cli
from utils.cli import display_path
from utils.config import DEFAULT_DATA, DataFolder, Device, FeaturesFile, OptionalFileName, parse
from utils.files import ROOT, UserError, write_json
from utils.splits import Split

RATIOS = (0.75, 0.05, 0.2)
EPOCHS = 2
COMPARED_USERS = 64


@dataclass(frozen=True)
class Settings:
    data: DataFolder = DEFAULT_DATA
    features: FeaturesFile = None
    presets: tuple[str, ...] = tuple(PRESETS)
    """the presets of train.py to time"""
    compile: tuple[str, ...] = ()
    """presets to train with torch.compile as well"""
    device: Device = "auto"
    output: OptionalFileName = None
    """where the figures go (default: resultAnalyze/benchmark_<device>.json)"""


@dataclass(frozen=True)
class Row:
    """How one preset trained."""

    preset: str
    variant: str
    samples_per_second: float  # training ratings, in the second epoch
    peak_memory_gib: float | None  # of the GPU
    validation: float  # RMSE or NDCG@10, after the second epoch
    difference_to_cpu: float  # the largest difference of scores


def main() -> None:
    settings = parse(Settings, __doc__)
    if unknown := [name for name in (*settings.presets, *settings.compile) if name not in PRESETS]:
        raise UserError(f"There is no preset {unknown[0]!r}: choose from {', '.join(PRESETS)}.")
    if others := set(settings.compile) - set(settings.presets):
        raise UserError(f"--compile {others.pop()} is not among --presets: name it there as well.")
    device = cli.resolve_device(settings.device)
    output = settings.output or ROOT / "resultAnalyze" / f"benchmark_{device.type}.json"
    data_config = DataConfig(settings.data, settings.features, ratios=RATIOS)
    (data, split), rows = data_config.load(), []
    for preset in settings.presets:
        config = dataclasses.replace(PRESETS[preset], data=data_config)
        for amp, compiled in [(False, False), (True, False), *[(False, True)] * (preset in settings.compile)]:
            print(f"{preset}{', amp' * amp}{', compiled' * compiled} ...", flush=True)
            rows.append(measure(config, data, split, device, amp, compiled))
            write_json(output, described(device) | {"data": data.name, "rows": [asdict(row) for row in rows]})
    table = pd.DataFrame(map(asdict, rows))
    print(f"\n{markdown_table(table.round({'samples_per_second': 0, 'peak_memory_gib': 2, 'validation': 4}))}")
    print(f"Wrote {display_path(output)}.")


def described(device: torch.device) -> dict[str, str]:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    return {"device": device.type, "name": name, "torch": torch.__version__}


def measure(
    config: TrainConfig, data: RatingsData, split: Split, device: torch.device, amp: bool, compiled: bool
) -> Row:
    """Two epochs of a preset at its learning rate."""
    torch.manual_seed(0)
    model = place(build_model(config.model, *model_inputs(data, split.train, config.features)), device)
    device = next(model.parameters()).device
    replica = torch.compile(model, dynamic=True) if compiled else model
    optim = config.optim
    optimizer = torch.optim.AdamW(parameter_groups(model, optim.weight_decay), lr=optim.lr, fused=True)
    loader = make_loader(data, split.train, optim.batch_size, 0, model.batching, device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    for epoch in range(1, EPOCHS + 1):
        loader.sampler.set_epoch(epoch)
        started = time.perf_counter()
        train_epoch(model, replica, loader, optimizer, [optim.lr] * len(loader), epoch, amp)  # waits for the device
        seconds = time.perf_counter() - started
    memory = torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else None
    evaluator = make_evaluator(config, data, split)
    variant = "compiled" if compiled else "amp" if amp else "single precision"
    validation = evaluator.validate(model)[evaluator.monitor.removeprefix("val_")]
    speed = len(split.train) / seconds
    return Row(config.preset, variant, speed, memory, validation, difference_to_cpu(model, data, split))


@torch.inference_mode()
def difference_to_cpu(model: nn.Module, data: RatingsData, split: Split) -> float:
    """The largest difference between the scores of a model on its device and on the CPU."""
    history = data.history(split.train).pad(torch.arange(min(COMPARED_USERS, len(data.user_ids))))
    on_device = model.eval().score(on_device_of(model, history)).cpu()
    return float((model.cpu().score(history) - on_device).abs().max())


if __name__ == "__main__":
    cli.run(main)
