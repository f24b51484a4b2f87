"""Several models that differ in their random start alone, trained side by side, and their averaged predictions."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from Models.Dataset import Batch, Output
from Models.histories import Past


class Ensemble(nn.Module):
    """Takes the place of one model: the same batches, the same outputs.

    Each member learns from its own loss alone: Adam's steps do not depend on what other parameters do.
    """

    def __init__(self, members: list[nn.Module]):
        super().__init__()
        self.members = nn.ModuleList(members)
        self.config, self.sizes, self.batching = members[0].config, members[0].sizes, members[0].batching

    def forward(self, batch: Batch) -> Output:
        """The mean of the members' predicted stars and, in training, the sum of their losses."""
        stars, losses, counts = zip(*(member(batch) for member in self.members), strict=True)
        return Output(mean(stars), sum(losses) if self.training else None, counts[0])

    def score(self, users: Tensor) -> Tensor:
        """The mean of the members' scores, [N, n_movies]."""
        return mean([member.score(users) for member in self.members])

    def score_past(self, past: Past) -> Tensor:
        """The same for users with these ratings."""
        return mean([member.score_past(past) for member in self.members])

    def movie_vectors(self) -> Tensor:
        """The members' movie vectors, each set of unit length, side by side."""
        return torch.cat([F.normalize(member.movie_vectors()) for member in self.members], 1)


def mean(outputs: Sequence[Tensor | None]) -> Tensor | None:
    return None if outputs[0] is None else torch.stack(list(outputs)).mean(0)
