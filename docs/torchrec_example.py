"""Matrix factorisation with tables split by rows over processes by TorchRec, compared with one process.

    pip install --no-deps torchrec==1.8.0 fbgemm-gpu-cpu==1.8.0 torchmetrics==1.0.3     # for torch 2.13.0, on CPUs
    pip install tensordict pyre-extensions lightning-utilities
    torchrun --standalone --nproc-per-node 2 docs/torchrec_example.py

Each process holds half of the rows of both tables, sees half of each batch, and gets the vectors that it needs from
the process that has them. The losses are those of one process with whole tables. This repo's NCF would also have to
compute its sums over all raters of a movie, which read whole tables, from samples.
"""

import torch
from torch import Tensor, distributed, nn
from torchrec import EmbeddingCollection, EmbeddingConfig, KeyedJaggedTensor
from torchrec.distributed import DistributedModelParallel, ShardingEnv
from torchrec.distributed.embedding import EmbeddingCollectionSharder
from torchrec.distributed.sharding_plan import construct_module_sharding_plan, row_wise
from torchrec.distributed.types import ShardingPlan
from torchrec.optim.apply_optimizer_in_backward import apply_optimizer_in_backward

ROWS, DIM, BATCH, STEPS, LR = {"user": 1_000, "movie": 200}, 16, 512, 200, 5.0
CPU = torch.device("cpu")


def batch(step: int) -> tuple[dict[str, Tensor], Tensor]:
    """Users, movies and ratings of a step, the same in every process: [BATCH] each."""
    random = torch.Generator().manual_seed(step)
    pairs = {name: torch.randint(n, (BATCH,), generator=random) for name, n in ROWS.items()}
    return pairs, (pairs["user"] % 3 - pairs["movie"] % 5).float()


def start(name: str) -> Tensor:
    return torch.randn(ROWS[name], DIM, generator=torch.Generator().manual_seed(len(name))) / DIM**0.5


def in_one_process() -> list[float]:
    tables = nn.ModuleDict({name: nn.Embedding.from_pretrained(start(name), freeze=False) for name in ROWS})
    optimizer, losses = torch.optim.SGD(tables.parameters(), lr=LR), []
    for step in range(STEPS):
        pairs, rating = batch(step)
        user, movie = (tables[name](ids) for name, ids in pairs.items())
        loss = ((user * movie).sum(1) - rating).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    return losses


def split_by_rows(tables: EmbeddingCollection) -> nn.Module:
    """The tables with their rows spread over the processes."""
    sharder, n = EmbeddingCollectionSharder(), distributed.get_world_size()
    plan = construct_module_sharding_plan(tables, {name: row_wise() for name in ROWS}, sharder, n, n, "cpu")
    env = ShardingEnv.from_process_group(distributed.group.WORLD)
    return DistributedModelParallel(tables, env, CPU, ShardingPlan({"": plan}), [sharder])


def in_several() -> tuple[list[float], int]:
    """The losses, and the number of rows that this process holds."""
    tables = EmbeddingCollection(
        tables=[
            EmbeddingConfig(name=name, embedding_dim=DIM, num_embeddings=n, feature_names=[name])
            for name, n in ROWS.items()
        ]
    )
    for name in ROWS:
        tables.embeddings[name].weight.data.copy_(start(name))
    apply_optimizer_in_backward(torch.optim.SGD, tables.parameters(), {"lr": LR})
    tables, losses = split_by_rows(tables), []
    rank, world = distributed.get_rank(), distributed.get_world_size()
    for step in range(STEPS):
        pairs, rating = batch(step)
        mine = slice(rank * BATCH // world, (rank + 1) * BATCH // world)
        ids = torch.cat([ids[mine] for ids in pairs.values()])
        found = tables(KeyedJaggedTensor(list(ROWS), ids, lengths=torch.ones_like(ids))).wait()
        loss = ((found["user"].values() * found["movie"].values()).sum(1) - rating[mine]).square().mean()
        loss.backward()  # and the step of the optimizer
        total = loss.detach() / world
        distributed.all_reduce(total)
        losses.append(float(total))
    return losses, sum(len(table.local_shards()[0].tensor) for table in tables.state_dict().values())


if __name__ == "__main__":
    distributed.init_process_group("gloo")
    losses, rows = in_several()
    apart = max(abs(one - other) / one for one, other in zip(in_one_process(), losses, strict=True))
    print(f"rank {distributed.get_rank()}: {rows:,} of {sum(ROWS.values()):,} rows; loss {losses[0]:.4f} to ", end="")
    print(f"{losses[-1]:.4f}, {apart:.0e} from that of one process")
    distributed.destroy_process_group()
