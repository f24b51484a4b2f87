#!/usr/bin/env python3
"""Plot training and validation loss by epoch, with the best epoch and the test loss.

    python resultAnalyze/loss_ananlyze.py
    python resultAnalyze/loss_ananlyze.py --run runs/20260101-120000 --output loss.png --show

Every loss is the mean squared error on rating / highest rating, the original's 0.034, without penalties.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from utils import cli, runs
from utils.cli import flag
from utils.files import ROOT, UserError, read_json, write_aside


@dataclass(frozen=True)
class Settings:
    run: Path | None = cli.run_flag("folder of a finished training (default: the newest in runs/)")
    output: Path = flag(ROOT / "resultAnalyze" / "Figure_1.png", "where the picture goes", metavar="FILE")
    show: bool = flag(False, "also open a window")


def main() -> None:
    settings = cli.parse(Settings, __doc__, None)
    run = runs.finished_run(settings.run)
    epochs, test = runs.read_table(run / "metrics.csv"), read_json(run / runs.TEST_METRICS)
    figure = draw(epochs, test, settings.show)
    with write_aside(settings.output) as aside:
        figure.savefig(aside, format="png", dpi=150)
    print(f"Wrote {cli.shown(settings.output)}: {len(epochs)} epochs of {cli.shown(run)}.")
    if settings.show:
        show()


def draw(epochs: list[dict[str, str]], test: dict, window: bool):
    """The figure of a run's metrics.csv and test_metrics.json."""
    import matplotlib

    if not window:
        matplotlib.use("agg")  # needs no screen
    import matplotlib.pyplot as plt
    from matplotlib.ticker import MaxNLocator

    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    numbers = [int(row["epoch"]) for row in epochs]
    axes.plot(numbers, [float(row["train_loss"]) for row in epochs], "o-", markersize=4, label="training")
    if "val_loss" in epochs[0]:
        validation = [float(row["val_loss"]) for row in epochs]
        axes.plot(numbers, validation, "s-", markersize=4, label="validation")
        best = numbers.index(test["best_epoch"])
        label = f"best epoch: {test['best_epoch']} (validation {validation[best]:.4f})"
        axes.plot(numbers[best], validation[best], "*", markersize=16, color="black", label=label)
    if "loss" in test:
        label = f"test: {test['loss']:.4f}, RMSE {test['rmse']:.4f}"
        axes.axhline(test["loss"], linestyle="--", color="tab:red", label=label)
        axes.set(xlabel="epoch", ylabel="mean squared error on rating / highest rating")
    else:  # a training to rank, whose validation has no loss
        axes.plot([], [], " ", label=f"test: HR@10 {test['hr@10']:.4f}, NDCG@10 {test['ndcg@10']:.4f}")
        axes.set(xlabel="epoch", ylabel="cross-entropy")
    axes.set_title(f"{test['dataset']}, {test['split']} split, {test['model']} ({test['preset']} preset)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def show() -> None:
    import matplotlib
    import matplotlib.pyplot as plt

    if matplotlib.get_backend().lower() == "agg":
        raise UserError("There is no screen to open a window on: leave --show out and look at the written picture.")
    plt.show()


if __name__ == "__main__":
    cli.run(main)
