"""Distributed data parallel training under torchrun; a no-op in a single process.

Every rank reads all data and makes the same global batches, of which it takes its shard of the rows or users.
DistributedDataParallel averages the gradients, so that a step is, but for random draws such as dropout's, the one that
a single process would take. Validation, test and recommendations are sharded as well: each rank does its part of the
rows or users, and none is done twice.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn

from utils.files import UserError


@contextmanager
def process_group(device: torch.device) -> Iterator[torch.device]:
    """Work in the block with the other processes that torchrun started, if it did; yields this rank's device.

    Raises:
        UserError: there are more ranks than GPUs, or another rank ended inside the block.
    """
    if not distributed.is_torchelastic_launched():
        yield device
        return
    if device.type == "cuda":
        local = int(os.environ["LOCAL_RANK"])
        if local >= torch.cuda.device_count():
            raise UserError(f"There are only {torch.cuda.device_count()} GPUs: lower torchrun's --nproc-per-node.")
        torch.cuda.set_device(local)
        device = torch.device("cuda", local)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        with (
            Path(os.devnull).open("w", encoding="utf-8", errors="replace") as silence,
            redirect_stdout(silence if rank() else sys.stdout),
        ):
            yield device
            barrier()
    except RuntimeError as error:
        if not isinstance(error, distributed.DistError) and "onnection closed" not in str(error):
            raise
        raise UserError(
            "Another process of this training ended: see its message; train.py --resume goes on."
        ) from error
    finally:
        distributed.destroy_process_group()


def rank() -> int:
    """The number of this process, from 0; rank 0 alone writes and speaks."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world_size() -> int:
    """How many processes there are."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def wrap_ddp(model: nn.Module) -> nn.Module:
    """The model, its gradients averaged over the ranks by every backward()."""
    if world_size() == 1:
        return model
    return nn.parallel.DistributedDataParallel(model, forward_sync_buffers=False, gradient_as_bucket_view=True)


def shard(n: int) -> slice:
    """This rank's part of n items; the parts of all ranks, in order, are all of them.

    Raises:
        UserError: there are fewer items than ranks.
    """
    if n < world_size():
        raise UserError(f"{world_size()} processes cannot share {n} rows or users: lower torchrun's --nproc-per-node.")
    return slice(n * rank() // world_size(), n * (rank() + 1) // world_size())


def shard_batch(batch: dict[str, Tensor], whole_users: bool) -> tuple[dict[str, Tensor], int]:
    """This rank's rows of a global batch and 1, or, where it has none, some row and 0: how much its loss counts."""
    if world_size() == 1:
        return batch, 1
    number = torch.arange(len(batch["user"]), device=batch["user"].device)
    if whole_users:
        number = torch.unique(batch["user"], return_inverse=True)[1]
    mine = number % world_size() == rank()
    has_rows = bool(mine.any())
    rows = mine if has_rows else number == 0
    return {name: column[rows] for name, column in batch.items()}, int(has_rows)


def all_reduce_sum(values: Tensor) -> Tensor:
    """The sum over all ranks of a tensor of equal shape."""
    if world_size() > 1:
        values = values.clone()
        distributed.all_reduce(values)
    return values


def barrier() -> None:
    """Wait until every rank has reached this line."""
    if world_size() > 1:
        distributed.barrier()


def all_gather(value: Any) -> list[Any]:
    """The values of all ranks, in the order of the ranks."""
    found = [value] * world_size()
    if world_size() > 1:
        distributed.all_gather_object(found, value)
    return found


def say(text: str) -> None:
    """Print something beside the result, once for all ranks."""
    if not rank():
        print(text, file=sys.stderr)
