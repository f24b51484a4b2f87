"""Embedding tables too large for one process, with their rows split over the ranks by torch's DTensor."""

import torch
from torch import Tensor, distributed, nn
from torch.distributed.tensor import DTensor, Partial, Shard, distribute_tensor, init_device_mesh
from torch.nn import functional as F


class ShardedEmbedding(nn.Module):
    """An embedding whose rows are split over the ranks. All ranks must look up together, each its own indices.

    Every rank gets the indices of all ranks and looks up those whose rows it holds; the results are summed, and each
    rank gets back its own.

    Args:
        whole: the embedding with all rows, the same on every rank
    """

    def __init__(self, whole: nn.Embedding):
        super().__init__()
        self.mesh = init_device_mesh(whole.weight.device.type, (distributed.get_world_size(),))
        rows = distribute_tensor(whole.weight.detach(), self.mesh, [Shard(0)], src_data_rank=None)
        self.weight = nn.Parameter(rows)
        # this is the gradient of the sum of the ranks' losses; DistributedDataParallel takes their mean for all others
        self.weight.register_hook(lambda gradient: gradient / distributed.get_world_size())

    def forward(self, index: Tensor) -> Tensor:
        """The rows at these indices, [n, D]; n may differ between ranks."""
        longest = torch.tensor(len(index), device=index.device)
        distributed.all_reduce(longest, distributed.ReduceOp.MAX)
        padded = F.pad(index, (0, int(longest) - len(index)))
        everyones = DTensor.from_local(padded, self.mesh, [Shard(0)]).full_tensor()
        rows = self.weight.to_local()  # F.embedding of a DTensor would make a gradient of all rows
        mine = everyones - distributed.get_rank() * -(-len(self.weight) // distributed.get_world_size())
        is_here = (mine >= 0) & (mine < len(rows))
        found = F.embedding(mine.clamp(0, len(rows) - 1), rows) * is_here[:, None]
        return (
            DTensor.from_local(found, self.mesh, [Partial()])
            .redistribute(placements=[Shard(0)])
            .to_local()[: len(index)]
        )
