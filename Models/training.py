"""Training craft: which weights decay, the learning rate over the epochs, one epoch, and when to stop."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from Models.dataLoader import RatingsData
from Models.evaluate import predict, rating_metrics, to_device
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
    loader: DataLoader,
    optimizer: torch.optim.Optimizer,
    rates: list[float],
    device: torch.device,
    epoch: int,
) -> float:
    """One pass over the training rows; returns the mean squared error on rating / high of the predictions in training.

    Raises:
        UserError: a loss was not finite.
    """
    model.train()
    high, losses, sizes = model.sizes.high, [], []
    for batch, rate in zip(
        tqdm(loader, desc=f"epoch {epoch}", unit=" batches", leave=False, disable=None), rates, strict=True
    ):
        batch = to_device(batch, device)
        for group in optimizer.param_groups:
            group["lr"] = rate
        stars, loss = model(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(((stars.detach() - batch["rating"]) / high).square().mean())
        sizes.append(len(stars))
    by_batch = torch.stack(losses).double().cpu()  # read once an epoch: reading each loss would stall a GPU
    if not by_batch.isfinite().all():
        wrong = int((~by_batch.isfinite()).nonzero()[0]) + 1
        raise UserError(
            f"The loss was not finite in epoch {epoch}, batch {wrong}: the learning rate is the likely cause, "
            "lower --lr; the checkpoints of the epochs before are kept."
        )
    return float((by_batch * torch.tensor(sizes)).sum() / sum(sizes))


def measure(
    model: nn.Module, data: RatingsData, rows: np.ndarray, loader: DataLoader, device: torch.device
) -> tuple[Tensor, dict[str, Any]]:
    """Predicted stars of these rows, and their metrics."""
    stars = predict(model, loader, device)
    return stars, rating_metrics(stars, torch.from_numpy(data.rating[rows]), model.sizes.high)


def best_epoch(done: list[dict[str, Any]]) -> int:
    """The epoch with the lowest validation RMSE, the first of equals; the last epoch where nothing validates."""
    if "val_rmse" not in done[0]:
        return done[-1]["epoch"]
    return min(done, key=lambda row: row["val_rmse"])["epoch"]


def has_stopped_improving(done: list[dict[str, Any]], patience: int) -> bool:
    return patience > 0 and len(done) > 0 and len(done) - best_epoch(done) >= patience
