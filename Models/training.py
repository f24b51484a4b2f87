"""Training craft: which weights decay, the learning rate over the epochs, one epoch, and when to stop."""

import math
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from Models import parallel
from Models.objectives import Objective
from utils.files import UserError


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay for linear layers only: embeddings have their penalty, once for each rating."""
    linear = [p for module in model.modules() if isinstance(module, nn.Linear) for p in module.parameters()]
    ids = {id(p) for p in linear}
    others = [p for p in model.parameters() if id(p) not in ids]
    return [{"params": linear, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


def learning_rates(schedule: str, lr: float, epochs: int, epoch: int, n_batches: int) -> list[float]:
    """The learning rate of each step of an epoch: constant, or up over 5 % of all steps and along a cosine to 0."""
    if schedule == "constant":
        return [lr] * n_batches
    done = [(epoch - 1 + k / n_batches) / epochs for k in range(n_batches)]
    return [lr * min(1, (share + 1e-3) / 0.05) * (1 + math.cos(math.pi * share)) / 2 for share in done]


def train_epoch(
    model: nn.Module,
    replica: nn.Module,
    loader: DataLoader,
    optimizer: torch.optim.Optimizer,
    rates: list[float],
    epoch: int,
    amp: bool = False,
) -> float:
    """One pass over the training rows; returns the mean loss of ranking or, of stars, the mean squared error on
    rating / high of the predictions in training.

    Args:
        replica: `parallel.replicated(model)`
        rates: the learning rate of each step
        amp: compute in bfloat16 where that is precise enough; weights and sums stay float32

    Raises:
        UserError: a loss was not finite.
    """
    model.train()
    losses, counts = [], []
    for batch, rate in zip(
        tqdm(loader, f"epoch {epoch}", unit=" batches", leave=False, disable=parallel.rank() > 0 or None),
        rates,
        strict=True,
    ):
        batch, has_rows = parallel.share_of_batch(batch, model.batching.whole_users)
        for group in optimizer.param_groups:
            group["lr"] = rate
        with torch.autocast(batch["user"].device.type, torch.bfloat16, enabled=amp):
            output = replica(batch)
        count = torch.as_tensor(output.count * has_rows, device=output.loss.device, dtype=torch.float32)
        optimizer.zero_grad()
        # the ranks' gradients are averaged, so each loss counts by its share of the whole batch
        (output.loss * (count * parallel.world() / parallel.summed(count))).backward()
        optimizer.step()
        shown = output.loss.detach()
        if model.config.objective == "rating":
            shown = ((output.stars.detach() - batch["rating"]) / model.sizes.high).square().mean()
        losses.append(shown * count)
        counts.append(count)
    both = parallel.summed(torch.stack([torch.stack(counts), torch.stack(losses)]))
    total, by_batch = both.cpu().double()  # read once an epoch: reading each loss would stall a GPU
    if not by_batch.isfinite().all():
        wrong = int((~by_batch.isfinite()).nonzero()[0]) + 1
        raise UserError(
            f"The loss was not finite in epoch {epoch}, batch {wrong}: the learning rate is the likely cause, "
            "lower --lr; the checkpoints of the epochs before are kept."
        )
    return float(by_batch.sum() / total.sum())


def best_epoch(done: list[dict[str, Any]], objective: Objective) -> int:
    """The epoch that validation prefers, the first of equals; the last epoch where nothing validates."""
    if objective.chosen_by not in done[0]:
        return done[-1]["epoch"]
    return objective.better(done, key=lambda row: row[objective.chosen_by])["epoch"]
