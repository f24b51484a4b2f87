"""Files: the repo's folders, errors for the user, atomic writing, hashes and pickles that are only data."""

import hashlib
import io
import json
import math
import os
import pickle
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
DATASET = ROOT / "dataset"
RUNS = ROOT / "runs"


class UserError(Exception):
    """A fault the user can mend: one sentence that says what is wrong, where, and what to do."""


@contextmanager
def write_aside(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside `target`, renamed to it only if the block ends well.

    A crash or `kill -9` at any moment leaves the old file or the new one, never a part of it. A device or pipe, such as
    /dev/stdout, is written to itself: a rename would put a file in its place.
    """
    if target.exists() and not (target.is_file() or target.is_dir()):
        yield target
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    os.close(handle)
    aside = Path(name)
    try:
        yield aside
        aside.chmod(0o666 & ~_umask())
        with aside.open("rb") as written:
            os.fsync(written.fileno())
        aside.replace(target)
    finally:
        aside.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_json(target: Path, value: Any) -> None:
    with write_aside(target) as aside:
        aside.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}): delete it and make it again.") from error


@contextmanager
def unpack_aside(target: Path) -> Iterator[Path]:
    """Yield an empty folder beside `target`, renamed to it only if the block ends well."""
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    aside.chmod(0o777 & ~_umask())
    try:
        yield aside
        aside.rename(target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def sha256(path: Path) -> str:
    return _file_hash(path, hashlib.sha256())


def md5(path: Path) -> str:
    return _file_hash(path, hashlib.md5(usedforsecurity=False))


def _file_hash(path: Path, digest: Any) -> str:
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def text_hash(*lines: str) -> str:
    """SHA-256 of a list of texts, each closed by a separator so that ["ab", "c"] and ["a", "bc"] differ."""
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line.encode() + b"\x1e")
    return digest.hexdigest()


def write_pickle(target: Path, value: Any) -> None:
    with write_aside(target) as aside:
        aside.write_bytes(pickle.dumps(value, protocol=4))


class _NumberType:
    """A NumPy number type as a pickle names it; stands in for np.dtype, whose own reading trusts the file."""

    def __init__(self, name: str, *_: Any):
        if not re.fullmatch(r"[biuf][1248]", name):
            raise UserError(f"it holds an array of {name[:20]!r}, not of numbers")
        self.type = np.dtype(name)

    def __setstate__(self, state: tuple) -> None:
        self.type = self.type.newbyteorder(state[1])


class _NumberArray(np.ndarray):
    """An array that is built only from as many bytes as its shape and type say."""

    def __setstate__(self, state: tuple) -> None:
        version, shape, kind, fortran, content = state
        if not isinstance(content, bytes) or any(n < 0 for n in shape):
            raise UserError("it holds an array without its numbers")
        if math.prod(shape) * kind.type.itemsize != len(content):
            raise UserError("it holds an array of another size than its numbers have")
        super().__setstate__((version, shape, kind.type, fortran, content))


def _empty_array(*_: Any) -> np.ndarray:
    return np.ndarray.__new__(_NumberArray, (0,), np.int8)


def _array_of(content: Any, kind: _NumberType, shape: tuple, order: str) -> np.ndarray:
    return np.frombuffer(content, kind.type).reshape(shape, order=order)


def _number(kind: _NumberType, content: bytes) -> Any:
    return np.frombuffer(content, kind.type, count=1)[0]


class _DataUnpickler(pickle.Unpickler):
    """Builds containers, numbers, strings and numpy arrays; a pickle that would run anything else is refused."""

    NUMPY_CORES = r"numpy(\._?core\.(multiarray|numeric))?"  # numpy._core since numpy 2.0
    NAMES: ClassVar = {
        **{"ndarray": np.ndarray, "dtype": _NumberType, "_reconstruct": _empty_array},
        **{"scalar": _number, "_frombuffer": _array_of},
    }

    def find_class(self, module: str, name: str) -> Any:
        if re.fullmatch(self.NUMPY_CORES, module) and name in self.NAMES:
            return self.NAMES[name]
        raise UserError(f"it holds {module}.{name}, which is code, not data")


def read_pickle(path: Path) -> Any:
    """Read a pickle of plain data; raise UserError where it holds anything that could run code."""
    try:
        return _DataUnpickler(io.BytesIO(path.read_bytes())).load()
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise UserError(
            f"{path} can't be read as plain data ({error}): make it again with python utils/BERT.py."
        ) from error
