"""Files: the repo's folders, errors for the user, atomic writing, JSON, archives and hashes."""

import errno
import hashlib
import json
import os
import shutil
import tempfile
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
DATASET = ROOT / "dataset"
RUNS = ROOT / "runs"
MAX_UNPACKED = 4 << 30  # bytes of a data set or encoder; the largest, ml-25m, has 1.1 GiB


class UserError(Exception):
    """An error the user can fix: one sentence that says what is wrong, where, and what to do."""


class Note(UserWarning):
    """Something about the user's data that they may not know; scripts print it once and continue."""


def note(text: str) -> None:
    warnings.warn(text, Note, stacklevel=2)


@contextmanager
def atomic_write(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside `target`, renamed to it only if the block succeeds.

    A crash or `kill -9` at any moment leaves the old file or the new one, never a part of it. A device or pipe, such as
    /dev/stdout, is written to directly: a rename would replace it by a file.
    """
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
    if target.exists() and not target.is_file():
        yield target
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(target)) from error  # the user knows this name
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        with temporary.open("r+b") as written:  # Windows flushes only what is open for writing
            os.fsync(written.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(target: Path, text: str) -> None:
    """Write UTF-8; what is not UTF-8 in the name of a file becomes a question mark."""
    with atomic_write(target) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="replace")


def write_table(target: Path, table: Any) -> None:
    """Write a DataFrame as CSV; missing values are empty. (Importing pandas for its type takes a third of a second.)"""
    with atomic_write(target) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n", encoding="utf-8")


def write_json(target: Path, value: Any) -> None:
    """Write UTF-8; names of files that are not UTF-8, which Linux allows, keep their bytes."""
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    with atomic_write(target) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="surrogateescape")


def read_json(path: Path) -> Any:
    """What `write_json` wrote.

    Raises:
        UserError: the file is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8", errors="surrogateescape"))
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}): delete it and make it again.") from error


@contextmanager
def atomic_dir(target: Path) -> Iterator[Path]:
    """Yield an empty folder beside `target`, renamed to it only if the block succeeds."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    temporary.chmod(0o777 & ~_umask())
    try:
        yield temporary
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def unpack_zip(archive: Path, folder: str, target: Path, files: str = "*") -> None:
    """Unpack the regular files of one folder of a zip archive, or only the `files`; nothing else is written.

    A symbolic link in it becomes a small file, and no file gets larger than the archive's directory says.
    """
    with zipfile.ZipFile(archive) as zipped, atomic_dir(target) as temporary:
        prefix = folder + "/"
        members = [entry for entry in zipped.infolist() if entry.filename.startswith(prefix) and not entry.is_dir()]
        members = [entry for entry in members if fnmatchcase(entry.filename[len(prefix) :], files)]
        if not members:
            raise UserError(f"{archive} holds no folder {folder}: delete it and download it again.")
        if sum(entry.file_size for entry in members) > MAX_UNPACKED:
            raise UserError(f"{archive} would unpack to more than {MAX_UNPACKED >> 30} GiB: don't use it.")
        for entry in members:
            path = (temporary / entry.filename[len(prefix) :]).resolve()
            if not path.is_relative_to(temporary.resolve()):
                raise UserError(f"{archive} names a file outside its folder ({entry.filename}): don't use it.")
            path.parent.mkdir(parents=True, exist_ok=True)
            with zipped.open(entry) as source, path.open("wb") as file:
                shutil.copyfileobj(source, file)


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
