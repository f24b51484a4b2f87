"""What all scripts share: exit codes, messages on the screen, the device, paths as the user types them."""

import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from utils.files import Note, UserError

NO_NOTES = "RECOMMENDER_NO_NOTES"  # environment variable that silences notes which another script has printed


class Messages:
    """Standard output that ignores a closed pipe, such as `| head`, so that the script's work continues."""

    def __init__(self, stream: Any):
        self.stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        self._try(lambda: self.stream.write(text))
        return len(text)

    def flush(self) -> None:
        self._try(self.stream.flush)

    def _try(self, action: Callable[[], Any]) -> None:
        try:
            action()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())


def run(main: Callable[[], None], prints_results: bool = False) -> None:
    """Call a script's main: exit code 0 on success, 1 and one sentence on an error that the user can fix.

    A script that `prints_results` ends when nobody reads its output any more; others continue their work.
    """
    _replace_what_streams_lack()
    warnings.simplefilter("ignore" if NO_NOTES in os.environ else "once", Note)
    warnings.filterwarnings("ignore", "Initializing zero-element tensors")  # models without movie features
    warnings.showwarning = _show_warning(warnings.showwarning)
    if not prints_results:
        sys.stdout = Messages(sys.stdout)
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:  # no permission, disk full, a folder where a file should be
        sys.exit(
            f"error: {error.filename or 'a file'}: {error.strerror or error}: check path, permissions and disk space."
        )
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        reason = (str(error).strip().splitlines() or ["no more is available"])[0]
        sys.exit(f"error: Out of memory ({reason}): lower --batch-size, or use a smaller model or another --device.")
    except KeyboardInterrupt:
        sys.exit("\nStopped: everything written so far is kept; train.py --resume continues a training.")


def _replace_what_streams_lack() -> None:
    """Show "?" for a character that the screen's encoding lacks, such as a Windows console's, instead of failing."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by what started the script
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115  open to the end
        if hasattr(stream := getattr(sys, name), "reconfigure"):
            stream.reconfigure(errors="replace")


def _show_warning(others: Callable[..., None]) -> Callable[..., None]:
    """A warnings handler that shows a note as one sentence, and in several processes only that of rank 0."""

    def show(message: Any, category: type[Warning], *where: Any, **more: Any) -> None:
        if not issubclass(category, Note):
            others(message, category, *where, **more)
        elif os.environ.get("RANK", "0") == "0":
            print(f"Note: {message}", file=sys.stderr, flush=True)

    return show


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory ran out. PyTorch has an exception type for a GPU's memory but none for the CPU's."""
    import torch

    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


def resolve_device(name: str) -> Any:
    """The torch device of a --device flag; `auto` prefers cuda, then mps, then the CPU.

    Raises:
        UserError: the named device is not on this machine.
    """
    import torch

    found = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(kind for kind in ("cuda", "mps", "cpu") if found[kind])
    if not found[name]:
        raise UserError(f"There is no {name} device on this machine: use --device cpu or --device auto.")
    return torch.device(name)


def display_path(path: Path) -> str:
    """A path as the user would type it: relative to the current folder where it lies inside it."""
    path = Path(path).resolve()
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
