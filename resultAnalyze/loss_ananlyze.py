#!/usr/bin/env python3
"""Plot training and validation loss by epoch, with the best epoch and the test loss.

    python resultAnalyze/loss_ananlyze.py
    python resultAnalyze/loss_ananlyze.py --run runs/RUN --output loss.png --show

The loss of a model that predicts ratings is the mean squared error on rating / highest rating (0.034 for the original),
without penalties. For a model that ranks, the validation NDCG is plotted with the training loss.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import pandas as pd

from utils import cli, runs
from utils.cli import display_path
from utils.config import FileName, OptionalFolder, parse
from utils.files import ROOT, UserError, atomic_write, read_json


@dataclass(frozen=True)
class Settings:
    run: OptionalFolder = None
    """folder of a finished training (default: the newest in runs/)"""
    output: FileName = ROOT / "resultAnalyze" / "Figure_1.png"
    """where the picture goes"""
    show: bool = False
    """also open a window"""


def main() -> None:
    settings = parse(Settings, __doc__)
    run = runs.finished_run(settings.run, tested=True)
    epochs, test = pd.read_csv(run / "metrics.csv"), read_json(run / runs.TEST_METRICS)
    figure = draw(epochs, test, settings.show)
    with atomic_write(settings.output) as temporary:
        figure.savefig(temporary, format="png", dpi=150)
    print(f"Wrote {display_path(settings.output)}: {len(epochs)} epochs of {display_path(run)}.")
    if settings.show:
        show()


def draw(epochs: pd.DataFrame, test: dict, window: bool):
    """The figure of a run's metrics.csv and test_metrics.json."""
    import matplotlib

    if not window:
        matplotlib.use("agg")  # needs no screen
    import matplotlib.pyplot as plt
    from matplotlib.ticker import MaxNLocator

    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    axes.plot(epochs["epoch"], epochs["train_loss"], "o-", markersize=4, label="training")
    if "val_loss" in epochs:
        axes.plot(epochs["epoch"], epochs["val_loss"], "s-", markersize=4, label="validation")
        best = epochs[epochs["epoch"] == test["best_epoch"]].iloc[0]
        label = f"best epoch: {test['best_epoch']} (validation {best['val_loss']:.4f})"
        axes.plot(best["epoch"], best["val_loss"], "*", markersize=16, color="black", label=label)
    if "loss" in test:
        label = f"test: {test['loss']:.4f}, RMSE {test['rmse']:.4f}"
        axes.axhline(test["loss"], linestyle="--", color="tab:red", label=label)
        axes.set(xlabel="epoch", ylabel="mean squared error on rating / highest rating")
    else:  # a ranking model, whose validation has no loss
        axes.plot([], [], " ", label=f"test: HR@10 {test['hr@10']:.4f}, NDCG@10 {test['ndcg@10']:.4f}")
        axes.set(xlabel="epoch", ylabel="loss")
        if "val_ndcg@10" in epochs:
            beside = axes.twinx()
            beside.plot(epochs["epoch"], epochs["val_ndcg@10"], "s-", markersize=4, color="tab:orange")
            beside.set_ylabel("NDCG@10")
            axes.set_zorder(1)  # its legend above the other line
            axes.patch.set_visible(False)
            best = test["best_epoch"]
            axes.plot([], [], "s-", markersize=4, color="tab:orange", label=f"validation NDCG@10, best in epoch {best}")
    title = f"{test['dataset']}, {test['split']} split, preset {test['preset']}"
    axes.set_title(title.encode(errors="replace").decode())  # a folder's name need not be UTF-8
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend(loc="upper right" if "loss" in test else "center right")  # between a falling and a rising line
    return figure


def show() -> None:
    import matplotlib
    import matplotlib.pyplot as plt

    if matplotlib.get_backend().lower() == "agg":
        raise UserError("There is no screen to open a window on: leave --show out and look at the written picture.")
    plt.show()


if __name__ == "__main__":
    cli.run(main)
