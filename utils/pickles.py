"""Pickles of plain data: written as usual, and read without running any code that the file names."""

import io
import math
import pickle
import re
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from utils.files import UserError, atomic_write


def write_pickle(target: Path, value: Any) -> None:
    with atomic_write(target) as temporary:
        temporary.write_bytes(pickle.dumps(value, protocol=4))


class _NumberType:
    """A NumPy number type as a pickle names it; replaces np.dtype, whose own reading trusts the file."""

    def __init__(self, name: str, *_: Any):
        if not re.fullmatch(r"[biuf][1248]", name):
            raise UserError(f"it holds an array of {name[:20]!r}, not of numbers")
        self.type = np.dtype(name)

    def __setstate__(self, state: tuple) -> None:
        self.type = self.type.newbyteorder(state[1])


class _NumberArray(np.ndarray):
    """An array that is built only if it has as many bytes as its shape and type say."""

    def __setstate__(self, state: tuple) -> None:
        version, shape, kind, fortran, content = state
        if not isinstance(content, bytes) or any(n < 0 for n in shape):
            raise UserError("it holds an array without its numbers")
        if math.prod(shape) * kind.type.itemsize != len(content):
            raise UserError("it holds an array whose size does not fit its numbers")
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
        "ndarray": np.ndarray,
        "dtype": _NumberType,
        "_reconstruct": _empty_array,
        "scalar": _number,
        "_frombuffer": _array_of,
    }

    def find_class(self, module: str, name: str) -> Any:
        if re.fullmatch(self.NUMPY_CORES, module) and name in self.NAMES:
            return self.NAMES[name]
        raise UserError(f"it holds {module}.{name}, which is code, not data")


def read_pickle(path: Path) -> Any:
    """Read a pickle of plain data; raise UserError if it holds anything that could run code."""
    try:
        return _DataUnpickler(io.BytesIO(path.read_bytes())).load()
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise UserError(
            f"{path} can't be read as plain data ({error}): make it again with python utils/BERT.py."
        ) from error
