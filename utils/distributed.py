"""Distributed data parallel training under torchrun; a no-op in a single process.

Every rank reads all data, makes the same global batches and takes its shard of their rows or users.
DistributedDataParallel averages the gradients, so that a step equals that of a single process, except for random draws
such as dropout. Validation, test and the lists of --all-users are sharded by rows or users as well. (Ranks among
sampled movies are the exception: every process computes all of them.)

Every rank holds all parameters or, with `shard_tables`, only its part of the rows of the largest tables.
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
    """Join the other processes that torchrun started, if any, for the block; yields this rank's device.

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
            "Another process of this training ended: see its message, then resume with train.py --resume."
        ) from error
    finally:
        distributed.destroy_process_group()


def rank() -> int:
    """The number of this process, from 0; only rank 0 writes files and prints."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world_size() -> int:
    """The number of processes."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def wrap_ddp(model: nn.Module) -> nn.Module:
    """The model, with gradients averaged over the ranks in every backward()."""
    if world_size() == 1:
        return model
    kind = nn.parallel.DistributedDataParallel
    sharded = [name for name, parameter in model.named_parameters() if is_sharded(parameter)]
    kind._set_params_and_buffers_to_ignore_for_model(model, sharded)
    return kind(model, forward_sync_buffers=False, gradient_as_bucket_view=True)


def shard_tables(model: nn.Module) -> None:
    """Keep on each rank only its part of the rows of the model's embeddings.

    Raises:
        UserError: the model does more with them than look them up, or there are too few rows.
    """
    if not model.looked_up:
        raise UserError(
            f"The model {type(model).__name__} needs whole tables: leave --shard out, or use --preset original."
        )
    if world_size() == 1:
        return
    from utils.sharded_tables import ShardedEmbedding  # importing DTensor takes a second

    for name in model.looked_up:
        whole = getattr(model, name)
        if len(whole.weight) < world_size() ** 2:  # DTensor could leave the last rank without rows
            raise UserError(
                f"{world_size()} processes cannot share {len(whole.weight)} rows of a table: lower torchrun's "
                "--nproc-per-node."
            )
        setattr(model, name, ShardedEmbedding(whole))


def is_sharded(value: Any) -> bool:
    """Whether this rank holds only a part of the tensor."""
    return hasattr(value, "full_tensor")


def gather_tables(state: Any) -> Any:
    """A state dict with sharded tables made whole on rank 0, and None elsewhere; all ranks must call it."""
    if isinstance(state, dict):
        return {name: gather_tables(value) for name, value in state.items()}
    if not is_sharded(state):
        return state
    parts = None if rank() else [None] * world_size()
    distributed.gather_object(state.to_local().cpu(), parts)  # full_tensor() would make it whole on all ranks
    return None if parts is None else torch.cat(parts)


def cut_like(whole: Any, part: Any) -> Any:
    """This rank's rows of a whole tensor where `part`, of the same shape, is sharded; else the value as it is."""
    if not is_sharded(part) or whole.shape != part.shape:
        return whole
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(whole, part.device_mesh, part.placements, src_data_rank=None)


def load_states(model: nn.Module, optimizer: torch.optim.Optimizer, whole: dict[str, Any]) -> None:
    """Load the `state` and `optimizer` that `gather_tables` gave on rank 0, for any number of ranks."""
    parts = model.state_dict()
    model.load_state_dict({name: cut_like(value, parts[name]) for name, value in whole["state"].items()})
    optimizer.load_state_dict(whole["optimizer"])
    for parameter, values in optimizer.state.items():
        values.update({name: cut_like(value, parameter) for name, value in values.items()})


def shard(n: int) -> slice:
    """This rank's part of n items; the parts of all ranks, in order, make up the whole.

    Raises:
        UserError: there are fewer items than ranks.
    """
    if n < world_size():
        raise UserError(f"{world_size()} processes cannot share {n} rows or users: lower torchrun's --nproc-per-node.")
    return slice(n * rank() // world_size(), n * (rank() + 1) // world_size())


def shard_batch(batch: dict[str, Tensor], whole_users: bool) -> tuple[dict[str, Tensor], int]:
    """This rank's rows of a global batch and the weight of its loss: 1, or 0 with some row if it has none."""
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
    """The sum over all ranks of a tensor of the same shape."""
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
    """Print a message to the error stream, once for all ranks."""
    if not rank():
        print(text, file=sys.stderr)
