"""Text files of any origin: encodings, lines, headers and separators; errors name file and line."""

import codecs
import contextlib
import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from utils.files import UserError, note

SEPARATORS = ("\t", ",", ";", "|")
# What titles in latin-1 rarely have: control characters, long runs of non-English letters, pairs as in UTF-8, signs
# inside a word, and Icelandic letters, whose codes are Turkish letters in latin-5.
NOT_LATIN_1 = re.compile(
    rb"[\x80-\x9f]|[\xa0-\xff]{3}|[\xc2-\xdf][\xa0-\xbf]|[A-Za-z][\xa1-\xbf\xd7\xf7][a-z]|[\xd0\xdd\xde\xf0\xfd\xfe]"
)


def read_utf8(path: Path, encoding: str | None = None, or_latin_1: bool = False) -> bytes:
    """The content of a text file in UTF-8, without a byte-order mark.

    Args:
        encoding: of a file that is not in UTF-8
        or_latin_1: read a file that is not in UTF-8 as latin-1 if it looks like that, as MovieLens 100K and 1M do

    Raises:
        UserError: the file is missing or empty, or a line is in another encoding or damaged; names the line.
    """
    if not path.exists():
        raise UserError(f"There is no file {path}: check the path.")
    content = path.read_bytes()
    if not content.isascii() or (encoding and b"\0" in content):
        content = _decoded(path, content, encoding, or_latin_1).encode().removeprefix(codecs.BOM_UTF8)
    if b"\0" in content:  # parsers would read values beside them
        raise UserError(
            f"{path}, line {_line_at(content, content.index(0))}: there are NUL bytes, as left by a cut-off write or "
            "by UTF-16: get the file again, or name its encoding, as in --encoding utf-16."
        )
    if not content.strip():
        raise UserError(f"{path} is empty: it needs at least one line.")
    return content


def note_on_cut(path: Path, content: bytes) -> None:
    """Say if the last line has no line end, as the file may have been cut off inside it."""
    if not content.endswith(b"\n"):
        note(f"{path} does not end with a line break: if it was cut off, get it again.")


def _decoded(path: Path, content: bytes, encoding: str | None, or_latin_1: bool) -> str:
    with contextlib.suppress(UnicodeError):
        if b"\0" not in content:
            return content.decode()
    if or_latin_1 and encoding is None and not NOT_LATIN_1.search(content):
        return content.decode("latin-1")
    try:
        text = content.decode(encoding or "utf-8")
    except UnicodeError as error:
        start = getattr(error, "start", 0)
        raise UserError(
            f"{path}, line {_line_at(content, start)}: the byte 0x{content[start]:02x} is not {encoding or 'UTF-8'}: "
            "name the file's encoding, as in --encoding cp1252 (Western), cp1251 (Cyrillic), gbk (Chinese) or utf-16."
        ) from error
    if encoding and (wrong := re.search(r"[\x80-\x9f]", text)):
        number = text[: wrong.start()].count("\n") + 1
        raise UserError(
            f"{path}, line {number}: read as {encoding}, it has control characters: name its real encoding, such "
            "as cp1252 (Western Europe)."
        )
    return text


def _line_at(content: bytes, position: int) -> int:
    return content[:position].count(b"\n") + 1


def lines_of(content: bytes) -> list[str]:
    """The lines of a text; unlike str.splitlines, control characters inside a title do not end a line."""
    found = content.decode().replace("\r\n", "\n").split("\n")
    return found[:-1] if found[-1] == "" else found


def first_line(content: bytes) -> str:
    return content.split(b"\n", 1)[0].decode().rstrip("\r")


# --- tables with a header ------------------------------------------------------------------------


@dataclass(frozen=True)
class Header:
    """The first line of a table.

    separator: of the fields
    names: of the columns, under our names; unknown columns keep their own
    types: of RecBole's columns, such as "token"; empty without them
    """

    separator: str
    names: list[str]
    types: list[str]

    @property
    def has_quotes(self) -> bool:
        """Whether fields may be quoted, as in CSV."""
        return not any(self.types)

    def fields(self, lines: list[str]) -> Iterator[tuple[int, list[str]]]:
        """The fields of each line, and the number of the line where they end; the first line is line 1.

        Raises:
            csv.Error: a quote is not closed, or stands inside a field.
        """
        if not self.has_quotes:
            yield from ((number, line.split(self.separator)) for number, line in enumerate(lines, start=1))
            return
        reader = csv.reader((line + "\n" for line in lines), delimiter=self.separator, strict=True)
        yield from ((reader.line_num, row) for row in reader if row)


def find_header(line: str, columns: dict[str, str]) -> Header | None:
    """The header of a table, with the separator that gives the most known columns; None if no column is known.

    Args:
        columns: our name of each known column; `user_id:token`, `userId`, `User ID` and `userid` are the same
    """
    best, most = None, (0, 0)
    for separator in SEPARATORS:
        written = [field.strip('" ').split(":") for field in line.split(separator)]
        names = [columns.get(plain(field[0]), field[0]) for field in written]
        known = (len(set(names) & set(columns.values())), len(names))
        if known[0] and known > most:
            best = Header(separator, names, [field[1] if len(field) > 1 else "" for field in written])
            most = known
    return best


def plain(name: str) -> str:
    """The name of a column in lower case, with only its letters and digits."""
    return re.sub(r"[\W_]", "", name).lower()


def check_header(
    path: Path, line: str, header: Header | None, columns: dict[str, str], needed: Sequence[str]
) -> Header:
    """The header, if it has the needed columns, and none twice; a note names columns that are ignored.

    Raises:
        UserError: there is none, or it lacks a column or has it twice.
    """
    names = header.names if header else []
    for missing in (name for name in needed if name not in names):
        known = ", ".join(written for written, name in columns.items() if name == missing)
        raise UserError(
            f"{path}, line 1: {line[:80]!r} names no column for the {missing}: give it one of the names {known} (upper "
            "case, blanks, _ and - do not matter) in a header line."
        )
    refuse_repeated(path, names)
    if unknown := [name for name in names if name not in columns.values()]:
        note(f"{path}: unknown columns are ignored ({', '.join(unknown)[:200]}).")
    return header


def refuse_repeated(path: Path, names: list[str]) -> None:
    """Refuse two columns with the same meaning, since either could be meant."""
    if repeated := [name for name in names if names.count(name) > 1]:
        raise UserError(f"{path} has two columns for {repeated[0][:80]!r}: keep one.")
