"""Tables whose rows are shared out among the ranks, by torch's DTensor, for those larger than one process can hold."""

import torch
from torch import Tensor, distributed, nn
from torch.distributed.tensor import DTensor, Partial, Shard, distribute_tensor, init_device_mesh
from torch.nn import functional as F


class ShardedEmbedding(nn.Module):
    """An embedding of which each rank holds its part of the rows. All ranks must look up together, each what it wants.

    Every rank gets the wanted indices of all, looks up those whose rows it holds, and the sums of what all found go
    back to who wants them.

    Args:
        whole: the embedding with all rows, the same on every rank
    """

    def __init__(self, whole: nn.Embedding):
        super().__init__()
        self.mesh = init_device_mesh(whole.weight.device.type, (distributed.get_world_size(),))
        rows = distribute_tensor(whole.weight.detach(), self.mesh, [Shard(0)], src_data_rank=None)
        self.weight = nn.Parameter(rows)
        # the gradient of the sum of the ranks' losses; DistributedDataParallel takes their mean for all else
        self.weight.register_hook(lambda gradient: gradient / distributed.get_world_size())

    def forward(self, index: Tensor) -> Tensor:
        """The rows at these indices, [n, D]; n may be another on each rank."""
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
