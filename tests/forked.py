"""The user's scripts in processes of their own that cost milliseconds: to be killed, starved and fuzzed by hundreds.

A script's main() is forked from a clean process that has imported all of them. (A test's own process has threads,
whose locks a fork would copy.) `make test` runs a quick share of these tests; `make soak` (SOAK=1) the whole.
"""

import contextlib
import functools
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import transformers.models.auto.modeling_auto
import transformers.models.auto.tokenization_auto
import transformers.models.bert.modeling_bert  # noqa: F401  a script imports these three where it needs them
from conftest import ROOT

import generate_recommendation
import main
import train
from resultAnalyze import ablation, benchmark, calibration, compare_baselines, loss_ananlyze, readme_results
from utils import BERT, cli, download, synthetic

resource = pytest.importorskip("resource", reason="forks the scripts, and limits what they may use")

SOAK = bool(os.environ.get("SOAK"))
SCRIPTS = {
    **{"main": main, "train": train, "generate_recommendation": generate_recommendation, "BERT": BERT},
    **{"download": download, "synthetic": synthetic, "loss_ananlyze": loss_ananlyze, "calibration": calibration},
    **{"compare_baselines": compare_baselines, "ablation": ablation, "benchmark": benchmark},
    "readme_results": readme_results,
}


class Script:
    """A script in a process of its own, in `folder` or the current one; `before` is called there first."""

    def __init__(
        self,
        main: Callable[[], None],
        *arguments: object,
        folder: Path | None = None,
        before: Callable[[], Any] | None = None,
    ):
        context = server()
        self.pipes, written = zip(*(context.Pipe(duplex=False) for _ in ("stdout", "stderr")), strict=True)
        words = [str(word) for word in arguments]
        self.process = context.Process(target=work, args=(main, words, folder or Path.cwd(), before, written))
        self.process.start()
        for pipe in written:
            pipe.close()
        self.out = self.error = ""

    @property
    def said(self) -> str:
        return self.out + self.error

    def ended(self) -> int:
        """The exit code; a script that needs more than five minutes hangs."""
        self.process.join(timeout=300)
        code = self.process.exitcode
        self.process.kill()
        assert code is not None, f"it hangs: {self.process.name}"
        self.out, self.error = map(all_of, self.pipes)
        return code

    def stopped(self, after: float, number: signal.Signals) -> int:
        """Its exit code once it got a signal after so many seconds, if it was still there."""
        self.process.join(after)
        if self.process.exitcode is None:
            with contextlib.suppress(ProcessLookupError):  # it has ended since
                os.kill(self.process.pid, number)
        return self.ended()


def all_of(pipe: Connection) -> str:
    with os.fdopen(os.dup(pipe.fileno()), encoding="utf-8", errors="replace") as file:
        pipe.close()
        return file.read()


@functools.cache
def server() -> Any:
    """The context of the process that forks, started; it imports this module, which it finds in its folder."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT / "tests")
        forkserver.ensure_running()
    first = context.Process(target=int)  # it begins once all is imported
    first.start()
    first.join()
    return context


def work(
    main: Callable[[], None],
    words: list[str],
    folder: Path,
    before: Callable[[], Any] | None,
    written: tuple[Connection, Connection],
) -> None:
    """What a script's process does: its main in this folder, with what it says going into the two pipes."""
    for number, pipe in zip((1, 2), written, strict=True):
        os.dup2(pipe.fileno(), number)
    sys.stdout, sys.stderr = (open(number, "w", buffering=1, closefd=False) for number in (1, 2))  # noqa: SIM115
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(folder)
    if before:
        before()
    call(main, words)


def call(main: Callable[[], None], words: list[str]) -> None:
    sys.argv = ["script", *words]
    cli.run(main)


def limited(which: int, amount: int) -> None:
    """Take no more of something, such as RLIMIT_FSIZE; of memory, than this process has already and so much more."""
    if which == resource.RLIMIT_AS:
        amount += int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(which, (amount, amount))


def commands_are_forked(otherwise: Callable[..., Any] = subprocess.run) -> None:
    """Let subprocess.run fork our scripts instead of starting Python anew; other commands are left to `otherwise`."""

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess:
        if not str(command[1]).endswith(".py"):
            return otherwise(command, **options)
        command = [str(word) for word in command]
        module = SCRIPTS[Path(command[1]).stem]
        process = multiprocessing.get_context("fork").Process(target=call, args=(module.main, command[2:]))
        process.start()
        process.join()
        done = subprocess.CompletedProcess(command, process.exitcode)
        if options.get("check"):
            done.check_returncode()
        return done

    subprocess.run = run


def explained(script: Script) -> str:
    """What a script said that failed: a sentence for the user, and no traceback."""
    assert script.ended() == 1, script.said
    assert "error: " in script.said and "Traceback" not in script.said, script.said
    return script.said


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.is_file():
        assert time.monotonic() < deadline
        time.sleep(0.01)
