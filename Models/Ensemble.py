"""Several models that differ in their random start alone, trained side by side, and their averaged predictions."""

import torch
from torch import Tensor, nn

from Models.Dataset import Batch


class Ensemble(nn.Module):
    """Takes the place of one model: the same batches, the same outputs.

    Each member learns from its own loss alone: Adam's steps do not depend on what other parameters do.
    """

    def __init__(self, members: list[nn.Module]):
        super().__init__()
        self.members = nn.ModuleList(members)
        self.config, self.sizes = members[0].config, members[0].sizes

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """The mean of the members' predicted stars, [B], and, in training, the sum of their losses, a scalar."""
        stars, losses = zip(*(member(batch) for member in self.members), strict=True)
        return torch.stack(stars).mean(0), sum(losses) if self.training else None

    def score(self, users: Tensor) -> Tensor:
        """The mean of the members' scores, [N, n_movies]."""
        return torch.stack([member.score(users) for member in self.members]).mean(0)
