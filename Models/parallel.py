"""One training by several processes, the ranks that `torchrun` starts; in a process alone, nothing of this acts.

Every rank reads all data and makes the same global batches, of which it takes its share of the rows or users.
DistributedDataParallel averages the gradients, so that a step is the one that a single process would take. Validation,
test and lists are shared as well: each rank does its share of the rows or users, and none is done twice.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn

from Models.Dataset import Batch
from utils.files import UserError


@contextmanager
def ranks(device: torch.device) -> Iterator[torch.device]:
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
        with Path(os.devnull).open("w") as silence, redirect_stdout(silence if rank() else sys.stdout):
            yield device
            wait()
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


def world() -> int:
    """How many processes there are."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def replicated(model: nn.Module) -> nn.Module:
    """The model, its gradients averaged over the ranks by every backward()."""
    if world() == 1:
        return model
    return nn.parallel.DistributedDataParallel(model, forward_sync_buffers=False, gradient_as_bucket_view=True)


def share(n: int) -> slice:
    """This rank's part of n things: the ranks' parts, behind each other, are all of them.

    Raises:
        UserError: there are fewer things than ranks.
    """
    if n < world():
        raise UserError(f"{world()} processes can't share {n} rows or users: lower torchrun's --nproc-per-node.")
    return slice(n * rank() // world(), n * (rank() + 1) // world())


def share_of_batch(batch: Batch, whole_users: bool) -> tuple[Batch, int]:
    """This rank's rows of a global batch, and 1; or, where there are fewer than ranks, a row that counts 0."""
    if world() == 1:
        return batch, 1
    number = torch.arange(len(batch["user"]), device=batch["user"].device)
    if whole_users:
        number = torch.unique(batch["user"], return_inverse=True)[1]
    mine = number % world() == rank()
    has_rows = bool(mine.any())
    rows = mine if has_rows else number == 0
    return {name: column[rows] for name, column in batch.items()}, int(has_rows)


def summed(values: Tensor) -> Tensor:
    """The sum over all ranks of a tensor of equal shape."""
    if world() > 1:
        values = values.clone()
        distributed.all_reduce(values)
    return values


def wait() -> None:
    """Until every rank has come here, with what it wrote before."""
    if world() > 1:
        distributed.barrier()


def gathered(value: Any) -> list[Any]:
    """What each rank gives, in the order of the ranks."""
    found = [value] * world()
    if world() > 1:
        distributed.all_gather_object(found, value)
    return found
