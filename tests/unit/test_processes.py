"""Calls in processes of their own: their results, their faults, and what happens if one is killed."""

import os
import signal
import time

import pytest
import torch
from helpers import threads

from resultAnalyze.experiment import in_processes
from utils.files import UserError


def product(one: int, other: int) -> tuple[int, int, int]:
    return one * other, os.getpid(), torch.get_num_threads()


def work(one: int | str) -> int:
    if isinstance(one, str):
        time.sleep(1)
        raise UserError(one)
    return one


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture
def three_threads():
    """As a user may set them with OMP_NUM_THREADS."""
    with threads(3):
        yield


@pytest.mark.parametrize(("jobs", "threads_each"), [(1, 3), (2, 1)])
def test_each_call_has_a_process_of_its_own(jobs, threads_each, three_threads):
    found = list(in_processes(product, [(2, k) for k in range(5)], jobs))
    assert sorted(value for value, *_ in found) == [0, 2, 4, 6, 8]
    assert len({process for _, process, _ in found} - {os.getpid()}) == 5
    assert {threads for *_, threads in found} == {threads_each}


def test_a_fault_is_the_callers_and_what_else_was_at_work_is_not_lost():
    found = []
    with pytest.raises(UserError, match="no such model"):
        for one in in_processes(work, [(0,), ("no such model",), (2,)], 2):
            found.append(one)
    assert {0} <= set(found) <= {0, 2}


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no such signal here")
def test_a_killed_process_is_explained():
    """If the system kills a process for its memory, the others end and nobody waits for it."""
    with pytest.raises(UserError, match="A process was killed, perhaps for lack of memory"):
        list(in_processes(die, [()], 2))
