"""Text files of separated fields: encodings, lines and headers."""

from pathlib import Path

from utils.files import UserError


def read_text(path: Path) -> str:
    """A text file in UTF-8 or, where it is not that, in latin-1, as ML-100K and ML-1M are."""
    data = path.read_bytes()
    refuse_nul_bytes(path, data)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def refuse_nul_bytes(path: Path, content: bytes) -> None:
    """NUL bytes are holes that a power cut leaves in a file, or another encoding; parsers read values beside them."""
    if b"\0" in content:
        number = content[: content.index(b"\0")].count(b"\n") + 1
        raise UserError(
            f"{path}, line {number}: there are NUL bytes, as a cut write or UTF-16 leaves them: get the file anew, "
            "or save it as UTF-8."
        )


def lines(path: Path) -> list[str]:
    """The lines of a text file; unlike str.splitlines, a control character inside a title parts nothing."""
    found = read_text(path).replace("\r\n", "\n").split("\n")
    return found[:-1] if found[-1] == "" else found


def first_line(path: Path) -> str:
    """The line that tells a file's format.

    Raises:
        UserError: the file is missing or empty.
    """
    if not path.is_file():
        raise UserError(f"There is no file {path}: check the path.")
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        first = file.readline().strip("\r\n")
    if not first.strip():
        raise UserError(f"{path} is empty or starts with an empty line: a ratings file has a rating in each line.")
    return first


def header_names(path: Path, header: str, separator: str, columns: dict[str, str]) -> list[str]:
    """The columns of a header (`userId` or `item_id:token`) under our names; unknown ones keep their own.

    Raises:
        UserError: a column is missing that such a file needs.
    """
    written = [column.split(":")[0].strip('" ') for column in header.split(separator)]
    names = [columns.get(column.lower(), column) for column in written]
    needed = [name for name in ("user", "movie", "rating", "title") if name in columns.values()]
    if missing := [name for name in needed if name not in names]:
        raise UserError(f"{path}, line 1: the header {header[:80]!r} has no column for {', '.join(missing)}: add it.")
    refuse_repeated(path, names)
    return names


def refuse_repeated(path: Path, names: list[str]) -> None:
    """Which of two columns of the same meaning should count can't be known."""
    if repeated := [name for name in names if names.count(name) > 1]:
        raise UserError(f"{path} has two columns for {repeated[0][:80]!r}: keep one.")
