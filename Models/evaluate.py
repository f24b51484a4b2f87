"""Rating metrics, and predictions over a loader."""

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from Models.Dataset import Batch


def to_device(batch: Batch, device: torch.device) -> Batch:
    return {name: column.to(device, non_blocking=True) for name, column in batch.items()}


@torch.inference_mode()
def predict(model: nn.Module, loader: DataLoader, device: torch.device) -> Tensor:
    """Predicted stars of every row of the loader in its order, clipped to the rating scale, float32 [n] on the CPU."""
    model.eval()
    stars = [model(to_device(batch, device))[0] for batch in loader]
    return torch.cat(stars).clamp(model.sizes.low, model.sizes.high).cpu()


def rmse(prediction: Tensor, rating: Tensor) -> float:
    """Root mean squared error: sqrt(mean((prediction - rating)^2)), in the unit of the ratings."""
    return float((prediction.double() - rating.double()).square().mean().sqrt())


def mae(prediction: Tensor, rating: Tensor) -> float:
    """Mean absolute error: mean(|prediction - rating|), in the unit of the ratings."""
    return float((prediction.double() - rating.double()).abs().mean())


def rating_metrics(prediction: Tensor, rating: Tensor, high: float) -> dict[str, float]:
    """RMSE and MAE in stars and, as `loss`, the original's mean squared error on rating / high."""
    error = rmse(prediction, rating)
    return {"loss": (error / high) ** 2, "rmse": error, "mae": mae(prediction, rating)}
