"""The user's scripts in processes that start in milliseconds, so that tests can kill, starve and fuzz hundreds.

Each script's main() is forked from a clean process that has imported all scripts. (A test process itself has threads,
whose locks a fork would copy.) `make test` runs a small share of these tests; `make soak` (SOAK=1) all of them.
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
import transformers.models.bert.modeling_bert  # noqa: F401  scripts import these three only where they need them
from helpers import ROOT, rows_of

import generate_recommendation
import main
import train
from Models.checkpoint import read_checkpoint
from resultAnalyze import ablation, benchmark, calibration, compare_baselines, loss_ananlyze, synthetic, tables
from utils import BERT, cli, download, metadata
from utils.files import read_json

resource = pytest.importorskip("resource", reason="forks the scripts and limits their resources")

SOAK = bool(os.environ.get("SOAK"))
TIME_LIMIT = 300  # seconds; a script that needs longer counts as hanging
SCRIPTS = {
    "main": main,
    "train": train,
    "generate_recommendation": generate_recommendation,
    "BERT": BERT,
    "download": download,
    "metadata": metadata,
    "synthetic": synthetic,
    "loss_ananlyze": loss_ananlyze,
    "calibration": calibration,
    "compare_baselines": compare_baselines,
    "ablation": ablation,
    "benchmark": benchmark,
    "tables": tables,
}


class Script:
    """A running script in its own process, whose working directory is `folder` or else the current folder.

    Args:
        main: the script's main function
        arguments: its command line
        before: called in the new process before `main`
    """

    def __init__(
        self,
        main: Callable[[], None],
        *arguments: object,
        folder: Path | None = None,
        before: Callable[[], Any] | None = None,
    ):
        context = server()
        self.pipes, write_ends = zip(*(context.Pipe(duplex=False) for _ in ("stdout", "stderr")), strict=True)
        words = [str(argument) for argument in arguments]
        self.process = context.Process(target=_work, args=(main, words, folder or Path.cwd(), before, write_ends))
        self.process.start()
        for pipe in write_ends:
            pipe.close()
        self.stdout = self.stderr = ""

    @property
    def output(self) -> str:
        return self.stdout + self.stderr

    def wait(self) -> int:
        """Wait until the script has ended; returns the exit code."""
        self.process.join(timeout=TIME_LIMIT)
        code = self.process.exitcode
        self.process.kill()
        assert code is not None, f"{self.process.name} hangs"
        self.stdout, self.stderr = map(_read_all, self.pipes)
        return code

    def stop(self, number: signal.Signals, after: float = 0) -> int:
        """Send a signal after `after` seconds, unless the script has ended; returns the exit code."""
        self.process.join(after)
        if self.process.exitcode is None:
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                os.kill(self.process.pid, number)
        return self.wait()


def _read_all(pipe: Connection) -> str:
    with os.fdopen(os.dup(pipe.fileno()), encoding="utf-8", errors="replace") as file:
        pipe.close()
        return file.read()


@functools.cache
def server() -> Any:
    """The multiprocessing context, with its fork server started and ready; the server imports this module by name."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    folders = [Path(__file__).parent, ROOT / "tests", ROOT]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(map(str, folders)))
        forkserver.ensure_running()
    first = context.Process(target=int)  # starts once everything is imported
    first.start()
    first.join()
    return context


def _work(
    main: Callable[[], None],
    words: list[str],
    folder: Path,
    before: Callable[[], Any] | None,
    write_ends: tuple[Connection, Connection],
) -> None:
    """Run `main` in this folder, in the new process, with its output going into the two pipes."""
    for number, pipe in zip((1, 2), write_ends, strict=True):
        os.dup2(pipe.fileno(), number)
    sys.stdout, sys.stderr = (open(number, "w", buffering=1, closefd=False) for number in (1, 2))  # noqa: SIM115
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(folder)
    if before:
        before()
    _call(main, words)


def _call(main: Callable[[], None], words: list[str]) -> None:
    """Call a script as its last line does."""
    sys.argv = ["script", *words]
    cli.run(main, prints_results=main is generate_recommendation.main)


# --- limits on a script, and checks of what it leaves -------------------------------------------


def limit_resource(which: int, amount: int) -> None:
    """Limit a resource such as RLIMIT_FSIZE; the limit on memory is `amount` above what this process already has."""
    if which == resource.RLIMIT_AS:
        amount += int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(which, (amount, amount))


def fork_commands(otherwise: Callable[..., Any] = subprocess.run) -> None:
    """Let subprocess.run fork the scripts instead of starting Python anew; `otherwise` runs any other command."""

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess:
        if not str(command[1]).endswith(".py"):
            return otherwise(command, **options)
        words = [str(word) for word in command]
        module = SCRIPTS[Path(words[1]).stem]
        process = multiprocessing.get_context("fork").Process(target=_call, args=(module.main, words[2:]))
        process.start()
        process.join()
        done = subprocess.CompletedProcess(words, process.exitcode)
        if options.get("check"):
            done.check_returncode()
        return done

    subprocess.run = run


def explanation(script: Script) -> str:
    """The output of a script that must fail without a traceback and end with one line for the user."""
    assert script.wait() == 1, script.output
    lines = script.stderr.strip().splitlines()
    assert "Traceback" not in script.output and lines and lines[-1].startswith("error: "), script.output
    return script.output


def check_files_are_whole(run: Path) -> None:
    """Check that every file left by a stopped training can be read to its end."""
    readers = {
        "config.json": read_json,
        "test_metrics.json": read_json,
        "final.json": read_json,
        "best.pt": read_checkpoint,
        "last.pt": read_checkpoint,
    }
    for name, read in readers.items():
        if (run / name).is_file():
            read(run / name)
    if (run / "metrics.csv").is_file():
        rows = rows_of(run / "metrics.csv")
        assert rows and all("seconds" in row and None not in {*row, *row.values()} for row in rows)


def wait_for(path: Path) -> None:
    """Wait until a file exists, for at most a minute."""
    deadline = time.monotonic() + 60
    while not path.is_file():
        assert time.monotonic() < deadline
        time.sleep(0.01)
