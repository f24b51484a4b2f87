#!/usr/bin/env python3
"""Train a model, keep the epoch that is best by validation, and test it once.

    python train.py                                          # the multimodal NCF on dataset/ml-1m, random 50/30/20
    python train.py --preset original                        # the original configuration, in this code
    python train.py --preset history                         # ratings from the user's other ratings: lowest RMSE
    python train.py --preset autoencoder                     # what else a user would like: best lists, random split
    python train.py --preset transformer --split leave-one-out --relevance-threshold 0      # the next movie; or gru
    python train.py --preset ncf-ranking                     # the NCF, trained to rank
    python train.py --data dataset/ml-100k --seed 1
    python train.py --split time --ratios 0.8 0.1 0.1        # oldest ratings train, newest test
    python train.py --data dataset/ml-100k --train-file u1.base --test-file u1.test
    python train.py --ratios 0.9 0 0.1 --epochs 8            # no validation: a fixed number of epochs
    torchrun --nproc-per-node 2 -- train.py                  # two processes, or GPUs, share each batch
    python train.py --resume runs/RUN                        # resume an interrupted training
    python train.py --final runs/RUN                         # that configuration on all ratings, for recommending
    python train.py --continue-from runs/RUN                 # start from its weights, on more ratings

Writes runs/RUN/: config.json, metrics.csv (one row per epoch), best.pt, last.pt, test_predictions.csv (for rankings,
test_topn.csv) and, at the very end, test_metrics.json. A --final training has no test and writes final.json instead.
"""

import math
import shlex
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from Models.checkpoint import build_model, describe_data, describe_model, load_model, place, save_checkpoint
from Models.configs import TrainConfig
from Models.dataLoader import epoch_seed, make_loader
from Models.Dataset import UserBatches
from Models.evaluation.evaluators import Evaluator, best_epoch, make_evaluator
from Models.inputs import HIGHEST
from Models.ratings_data import RatingsData, model_inputs
from Models.training.command_line import parse_training
from Models.training.rows import describe_split, rows_of
from Models.training.run_folder import make_logger, restore, test_record, training_record, write_config
from Models.training.warm_start import start_from
from utils import cli, distributed, runs
from utils.cli import display_path
from utils.files import UserError, write_json, write_table
from utils.splits import Split


class Diverged(UserError):
    """A loss or validation metric is not finite."""


def main() -> None:
    config = parse_training(__doc__)
    with distributed.process_group(cli.resolve_device(config.run.device)) as device:
        train(config, device)


def train(config: TrainConfig, device: torch.device, tested: bool = True) -> Path:
    """Run one training from data to test; returns its run folder. Of several ranks, only rank 0 writes.

    tested: if False, it ends with the last epoch, and the run stays unfinished
    """
    writes = distributed.rank() == 0
    optim, seed = config.optim, config.run.seed

    # data
    data, split, n_epochs, earlier = rows_of(config)
    evaluator = make_evaluator(config, data, split)
    describe_split(config, data, split)
    for part in (split.val, split.test):
        if len(part):
            distributed.shard(len(part))  # refuse too few rows before an epoch is trained in vain

    # model and optimizer
    torch.manual_seed(seed)
    stats, inputs = model_inputs(data, split.train, config.features)
    model = place(build_model(config.model, stats, inputs), device)
    device = next(model.parameters()).device
    if earlier:
        start_from(earlier, data, model)
    if config.run.shard == "rows":
        distributed.shard_tables(model)
    replica = distributed.wrap_ddp(model)
    optimizer = torch.optim.AdamW(parameter_groups(model, optim.weight_decay), lr=optim.lr, fused=True)
    loader = make_loader(data, split.train, optim.batch_size, seed, model.batching, device)
    for notice in model.notices:
        print(notice)

    # run folder
    folder = config.run.resume or (runs.create_run(config.run.run or runs.new_run(config.kind)) if writes else None)
    folder = distributed.all_gather(folder)[0]
    shown = shlex.quote(display_path(folder))
    with runs.run_lock(folder) if writes else nullcontext():
        if writes and not config.run.resume:
            write_config(folder, config, data, split)
        epochs = restore(config, model, optimizer, data) if config.run.resume else []
        log = make_logger(folder, config.run.tensorboard and writes)
        known = describe_data(data, split) | describe_model(model, inputs)
        if epochs:  # the training may have been stopped before it wrote best.pt or metrics.csv
            save(model, optimizer, epochs, evaluator, folder, known)
        print(f"Training on {device} into {shown}; to resume after an interruption: python train.py --resume {shown}")

        # epochs
        for epoch in range(len(epochs) + 1, n_epochs + 1):
            if optim.patience and epochs and len(epochs) - best_epoch(epochs, evaluator) >= optim.patience:
                break
            epochs.append(run_epoch(config, model, replica, loader, optimizer, evaluator, epoch))
            save(model, optimizer, epochs, evaluator, folder, known)
            log(epochs[-1])

        # the only test, of the saved epoch that validation chose
        distributed.barrier()  # wait until rank 0 has saved it
        del model, replica, optimizer, loader, inputs  # the saved model needs the memory
        if config.run.final:
            finish_final(config, data, split, epochs, folder)
        elif tested:
            test(config, evaluator, epochs, folder, device)
    return folder


def save(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    epochs: list[dict[str, Any]],
    evaluator: Evaluator,
    folder: Path,
    known: dict[str, Any],
) -> None:
    """Save the training's state as last.pt and, if the latest epoch is the best by validation, its model as best.pt."""
    states = distributed.gather_tables({"state": model.state_dict(), "optimizer": optimizer.state_dict()})
    if distributed.rank():
        return
    save_checkpoint(folder / "last.pt", states | {"epochs": epochs})
    if best_epoch(epochs, evaluator) == len(epochs):
        save_checkpoint(folder / "best.pt", {"state": states["state"], "epoch": len(epochs)} | known)
    write_table(folder / "metrics.csv", pd.DataFrame(epochs))


# --- one epoch -----------------------------------------------------------------------------------


def run_epoch(
    config: TrainConfig,
    model: nn.Module,
    replica: nn.Module,
    loader: DataLoader,
    optimizer: torch.optim.Optimizer,
    evaluator: Evaluator,
    epoch: int,
) -> dict[str, Any]:
    """Train for one epoch and validate; returns a row of metrics.csv.

    Raises:
        Diverged: a loss or the validation was not finite.
    """
    optim, started = config.optim, time.perf_counter()
    torch.manual_seed(epoch_seed(config.run.seed, epoch))  # so dropout depends on the epoch, not on what ran before
    loader.sampler.set_epoch(epoch)
    rates = learning_rates(optim.schedule, optim.lr, optim.epochs, epoch, len(loader))
    row = {"epoch": epoch, "train_loss": train_epoch(model, replica, loader, optimizer, rates, epoch, optim.amp)}
    if len(evaluator.split.val):
        row |= {f"val_{name}": value for name, value in evaluator.validate(model).items()}
    if not all(map(math.isfinite, row.values())):
        raise Diverged(
            f"The validation was not finite in epoch {epoch}: the learning rate is the likely cause, lower --lr; the "
            "checkpoints of earlier epochs are kept."
        )
    return row | {"seconds": time.perf_counter() - started}


def train_epoch(
    model: nn.Module,
    replica: nn.Module,
    loader: DataLoader,
    optimizer: torch.optim.Optimizer,
    rates: list[float],
    epoch: int,
    amp: bool = False,
) -> float:
    """One pass over the training rows.

    Args:
        replica: `distributed.wrap_ddp(model)`
        rates: the learning rate of each step
        amp: whether products are in bfloat16

    Returns:
        for models that rank, the mean loss; for ratings, the mean squared training error of rating / HIGHEST

    Raises:
        Diverged: a loss was not finite.
    """
    model.train()
    losses, counts = [], []
    whole_users = isinstance(model.batching, UserBatches)
    hidden = distributed.rank() > 0 or None  # None: hidden where there is no terminal
    for batch, rate in zip(
        tqdm(loader, f"epoch {epoch}", unit=" batches", leave=False, disable=hidden), rates, strict=True
    ):
        batch, counted = distributed.shard_batch(batch, whole_users)
        for group in optimizer.param_groups:
            group["lr"] = rate
        with torch.autocast(batch["user"].device.type, torch.bfloat16, enabled=amp):
            output = replica(batch)
        count = torch.as_tensor(output.n_samples * counted, device=output.loss.device, dtype=torch.float32)
        # the ranks' gradients are averaged, so each loss is weighted by its share of the whole batch
        loss = output.loss * (count * distributed.world_size() / distributed.all_reduce_sum(count))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        shown = output.loss.detach()
        if output.prediction is not None:
            shown = ((output.prediction.detach() - batch["rating"]) / HIGHEST).square().mean()
        losses.append(shown * count)
        counts.append(count)
    both = distributed.all_reduce_sum(torch.stack([torch.stack(counts), torch.stack(losses)]))
    total, by_batch = both.cpu().double()  # read once per epoch: reading each loss would stall a GPU
    if not by_batch.isfinite().all():
        wrong = int((~by_batch.isfinite()).nonzero()[0]) + 1
        raise Diverged(
            f"The loss was not finite in epoch {epoch}, batch {wrong}: the learning rate is the likely cause, "
            "lower --lr; the checkpoints of earlier epochs are kept."
        )
    return float(by_batch.sum() / total.sum())


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay for linear layers only: parameters per user or movie have their own priors, or none."""
    linear = [p for module in model.modules() if isinstance(module, nn.Linear) for p in module.parameters()]
    ids = {id(p) for p in linear}
    others = [p for p in model.parameters() if id(p) not in ids]
    return [{"params": linear, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


def learning_rates(schedule: str, lr: float, epochs: int, epoch: int, n_batches: int) -> list[float]:
    """The learning rate of each step of an epoch: constant, or warm-up over 5 % of all steps and a cosine to 0."""
    if schedule == "constant":
        return [lr] * n_batches
    done = [(epoch - 1 + k / n_batches) / epochs for k in range(n_batches)]
    return [lr * min(1, (share + 1e-3) / 0.05) * (1 + math.cos(math.pi * share)) / 2 for share in done]


# --- the end of a training -----------------------------------------------------------------------


def test(
    config: TrainConfig, evaluator: Evaluator, epochs: list[dict[str, Any]], folder: Path, device: torch.device
) -> None:
    """Test the best epoch; test_metrics.json is written last and marks the run as finished."""
    model = load_model(folder / "best.pt", device).model
    if config.run.shard == "rows":
        distributed.shard_tables(model)
    metrics, table = evaluator.test(model)
    if distributed.rank() == 0:
        write_table(folder / evaluator.test_file, table)
        write_json(folder / runs.TEST_METRICS, metrics | test_record(config, evaluator, epochs))
    print(f"Best epoch {best_epoch(epochs, evaluator)}: test {evaluator.summary(metrics)}.")


def finish_final(
    config: TrainConfig, data: RatingsData, split: Split, epochs: list[dict[str, Any]], folder: Path
) -> None:
    """Mark a training on all ratings, which has no test, as finished."""
    if distributed.rank() == 0:
        record = training_record(config, data, split, epochs)
        record |= {"split": "all ratings", "ratios": None, "epochs_chosen_by": str(config.run.final)}
        write_json(folder / runs.FINAL, record)
    print(f"Trained on all {len(split.train):,} ratings; epochs: {len(epochs)}, chosen by {config.run.final.name}.")


if __name__ == "__main__":
    cli.run(main)
