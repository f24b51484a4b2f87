"""What tests share: the small data set, training runs on it, and readers of run folders."""

import contextlib
import csv
import io
import json
import os
import shutil
import ssl
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from unittest import mock

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
# Real data sets, if this machine has them; elsewhere their tests are skipped.
REAL_DATA = Path(os.environ.get("RECOMMENDER_TEST_DATA", ROOT.parent / "shared" / "data"))
RATIOS = (0.5, 0.3, 0.2)

# --- the small data set --------------------------------------------------------------------------


def tiny_ratings(n_users: int = 30) -> list[tuple[int, int, int, int]]:
    """Ratings of users who each rate 12 of 25 movies, as (user, movie, rating, time); ids have gaps."""
    random = np.random.default_rng(0)
    taste, kind = random.normal(size=n_users), random.normal(size=25)
    rows = []
    for user in range(n_users):
        for k, movie in enumerate(random.permutation(25)[:12]):
            rating = int(np.clip(round(3.3 + taste[user] * kind[movie] + 0.5 * random.normal()), 1, 5))
            rows.append((user * 3 + 1, movie * 7 + 2, rating, 978_300_000 + user * 1000 + k))
    return rows


def write_dat(folder: Path, ratings: list[tuple]) -> Path:
    """Write files in MovieLens 1M's format: latin-1, with movies that nobody rated and one without a genre."""
    folder.mkdir(parents=True, exist_ok=True)
    movies = [f"{i * 7 + 2}::Film number {i} ({1960 + i})::Drama|Comedy" for i in range(23)]
    movies += ["163::Misérables, Les (1995)::Drama|Musical", "170::Nothing at all::"]
    movies += ["900::Never: Rated (1999)::War", "901::Never Rated Either (2000)::(no genres listed)"]
    (folder / "movies.dat").write_text("\n".join(movies) + "\n", encoding="latin-1")
    (folder / "ratings.dat").write_text("".join("::".join(map(str, row)) + "\n" for row in ratings), encoding="latin-1")
    users = "".join(f"{user}::F::25::4::55117\n" for user in sorted({row[0] for row in ratings}))
    (folder / "users.dat").write_text(users, encoding="latin-1")
    return folder


def shuffle_ratings(folder: Path) -> None:
    """Shuffle the lines of ratings.dat."""
    lines = (folder / "ratings.dat").read_text().splitlines(keepends=True)
    (folder / "ratings.dat").write_text("".join(np.random.default_rng(1).permutation(lines)))


# --- commands and training runs ----------------------------------------------------------------------

TINY_TRAINING = (
    *("--preset", "ncf", "--epochs", 4, "--embedding-dim", 4, "--hidden-dim", 5, "--batch-size", 32),
    *("--schedule", "constant"),  # so that a longer training begins exactly like a shorter one
)
# For each preset, flags that make its training take about a second.
SMALL = {
    "ncf": ("--embedding-dim", 4, "--hidden-dim", 5, "--batch-size", 32),
    "original": ("--embedding-dim", 4, "--hidden-dims", 8, 4, "--batch-size", 32),
    "history": ("--embedding-dim", 4, "--hidden-dim", 5, "--batch-size", 60),
    "ncf-ranking": ("--embedding-dim", 4, "--hidden-dim", 5, "--batch-size", 8),
    "transformer": ("--embedding-dim", 4, "--max-length", 6, "--batch-size", 8),
    "gru": ("--embedding-dim", 4, "--max-length", 6, "--batch-size", 8),
    "autoencoder": ("--embedding-dim", 4, "--batch-size", 8),
    "content": ("--batch-size", 8),
}


def command(script: str, *arguments: object, root: Path = ROOT) -> list[str]:
    """A user's command as the argument list of a process."""
    return [sys.executable, str(root / script), *(str(argument) for argument in arguments)]


def run_command(script: str, *arguments: object, root: Path = ROOT) -> subprocess.CompletedProcess:
    """Run one of the user's commands; it must succeed."""
    done = subprocess.run(command(script, *arguments, root=root), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def train_here(*flags: object) -> Path:
    """Run train.py with these flags in this process, which saves its start-up time; returns the run folder."""
    import train
    from Models.training.command_line import parse_training

    return train.train(parse_training("", [str(word) for word in flags]), torch.device("cpu"))


def main_here(script: ModuleType, *flags: object) -> None:
    """Run a script's main with these flags in this process; a fault that the user can mend raises UserError."""
    with mock.patch.object(sys, "argv", ["script", *(str(word) for word in flags)]):
        script.main()


@contextlib.contextmanager
def threads(n: int) -> Iterator[None]:
    """Let PyTorch use `n` threads; tests use one, users several."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def recommend_here(*flags: object) -> str:
    """What generate_recommendation.py prints with these flags, run in this process."""
    import generate_recommendation as script

    settings = script.parse(script.Request, "", [str(word) for word in flags])
    with contextlib.redirect_stdout(io.StringIO()) as screen:
        script.generate(settings, torch.device("cpu"))
    return screen.getvalue()


def copy_of_repo(folder: Path) -> Path:
    """A copy of the repo's own files, without data, features and runs."""
    words = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(lambda name: (ROOT / name).is_file(), listed.splitlines()):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    return folder


# --- what a run folder holds ---------------------------------------------------------------------


def files_of(run: Path) -> list[str]:
    """The files of a run, except its lock file."""
    return sorted(path.name for path in run.iterdir() if path.name != ".lock")


def rows_of(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file."""
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_metrics(run: Path) -> dict:
    return json.loads((run / "test_metrics.json").read_text(encoding="utf-8"))


test_metrics.__test__ = False  # not a test, despite its name


def states_are_equal(one: Path, other: Path) -> bool:
    """Whether two checkpoints hold the same weights, bit for bit."""
    from Models.checkpoint import read_checkpoint

    a, b = (read_checkpoint(path)["state"] for path in (one, other))
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def without_times(run: Path) -> tuple[list, dict]:
    """The metrics of a run's epochs and of its test, without their timings."""
    epochs = [{name: value for name, value in row.items() if name != "seconds"} for row in rows_of(run / "metrics.csv")]
    return epochs, {name: value for name, value in test_metrics(run).items() if name != "wall_seconds"}


# --- models --------------------------------------------------------------------------------------


def random_model(data, rows: np.ndarray, config, std: float = 0.3, **feature_config) -> torch.nn.Module:
    """A model built for these training rows, with every parameter random, in evaluation mode."""
    from Models.checkpoint import build_model
    from Models.features import FeatureConfig
    from Models.ratings_data import model_inputs

    torch.manual_seed(0)
    model = build_model(config, *model_inputs(data, rows, FeatureConfig(**feature_config)))
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=std)
    return model.eval()


def batch_of(data, rows: np.ndarray) -> dict[str, torch.Tensor]:
    """These rows as one batch, in their order."""
    from Models.dataLoader import make_loader

    return next(iter(make_loader(data, rows, len(rows))))


def one_history(
    *movies: int,
    rating: float | list[float] = 4.0,
    time: list[int] | None = None,
    user: int = -1,
    at: int | None = None,
):
    """The padded history of one user, by default a new one who rated a movie every 100 seconds."""
    from Models.sequences import PaddedHistory

    ratings = torch.tensor(rating, dtype=torch.float32).expand(1, len(movies)).clone()
    times = torch.arange(len(movies))[None] * 100 if time is None else torch.tensor([time])
    movie = torch.tensor([movies], dtype=torch.int64)
    latest = times[:, -1] if movies else torch.zeros(1, dtype=torch.int64)
    asked = latest if at is None else torch.tensor([at])
    return PaddedHistory(torch.tensor([user]), movie, ratings, times, torch.ones_like(movie).bool(), asked)


def cross_entropy(scores: torch.Tensor, movie: int, others: list[int]) -> torch.Tensor:
    """The cross-entropy of one movie among itself and others, from the scores of all movies."""
    return torch.logsumexp(scores[torch.tensor([movie, *others])], 0) - scores[movie]


# --- untrusted content ---------------------------------------------------------------------------


class Evil:
    """An object whose unpickling runs code: it creates a folder."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def make_zip(files: dict[str, str]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as zipped:
        for name, text in files.items():
            zipped.writestr(name, text)
    return content.getvalue()


class ArchiveHost:
    """A local server in place of the official host: it serves one body, can cut answers short and honours ranges.

    Args:
        certificate: file with a key and a certificate, to serve HTTPS
    """

    def __init__(self, body: bytes, certificate: Path | None = None):
        self.body, self.cut_after, self.ranges = body, None, []
        host = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                start = int((self.headers.get("Range") or "bytes=0-").split("=")[1].rstrip("-"))
                host.ranges.append(start)
                if start >= len(host.body):
                    self.send_error(416)
                    return
                rest = host.body[start:]
                self.send_response(206 if start else 200)
                self.send_header("Content-Length", str(len(rest)))
                self.end_headers()
                self.wfile.write(rest[: host.cut_after])

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.address = f"127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
