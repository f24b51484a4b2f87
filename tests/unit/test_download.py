"""Downloads: resumed, verified, unpacked beside their target; a local server stands in for the official host."""

import hashlib
import io
import stat
import zipfile

import pytest
from helpers import ArchiveHost, make_zip

from utils import download, files
from utils.files import UserError, unpack_zip

ARCHIVE = make_zip({"ml-1m/ratings.dat": "1::2::3::4\n" * 1000, "ml-1m/README": "terms", "other/file": "not ours"})


@pytest.fixture
def host(monkeypatch):
    """The official host, speaking http; the archive that it serves has the pinned checksum."""
    host = ArchiveHost(ARCHIVE)
    monkeypatch.setattr(download, "OFFICIAL", host.address)
    checksum = hashlib.md5(ARCHIVE, usedforsecurity=False).hexdigest()
    monkeypatch.setitem(download.ARCHIVES, "ml-1m", ("ml-1m", checksum))
    yield host
    host.server.shutdown()


# --- downloading ---------------------------------------------------------------------------------


def test_only_the_folder_of_the_data_is_unpacked(host, tmp_path):
    folder, source = download.fetch_dataset("ml-1m", tmp_path)
    assert folder == tmp_path / "ml-1m" and source == "the official archive"
    assert sorted(path.name for path in folder.iterdir()) == ["README", "ratings.dat"]
    assert [path.name for path in tmp_path.iterdir()] == ["ml-1m"]  # no archive, no part, no scratch folder


def test_a_data_set_that_is_there_is_not_downloaded_again(host, tmp_path):
    download.fetch_dataset("ml-1m", tmp_path)
    asked = len(host.ranges)
    assert download.fetch_dataset("ml-1m", tmp_path) == (tmp_path / "ml-1m", "already there")
    assert len(host.ranges) == asked


def test_offline_nothing_is_fetched(host, tmp_path):
    with pytest.raises(UserError, match="--offline downloads nothing"):
        download.fetch_dataset("ml-1m", tmp_path, offline=True)
    assert host.ranges == []
    download.fetch_dataset("ml-1m", tmp_path)
    assert download.fetch_dataset("ml-1m", tmp_path, offline=True)[1] == "already there"


def test_a_cut_download_goes_on_where_it_stopped(host, tmp_path):
    host.cut_after = 300
    with pytest.raises(UserError, match="interrupted after 300 of"):
        download.fetch_dataset("ml-1m", tmp_path)
    assert not (tmp_path / "ml-1m").exists() and not (tmp_path / "ml-1m.zip").exists()
    host.cut_after = None
    download.fetch_dataset("ml-1m", tmp_path)
    assert host.ranges[-1] == 300
    assert (tmp_path / "ml-1m/ratings.dat").read_text() == "1::2::3::4\n" * 1000


def test_a_part_that_is_no_beginning_of_the_archive_is_thrown_away(host, tmp_path):
    (tmp_path / "ml-1m.zip.part").write_bytes(b"x" * (len(ARCHIVE) + 5))
    with pytest.raises(UserError):
        download.fetch_dataset("ml-1m", tmp_path)
    download.fetch_dataset("ml-1m", tmp_path)
    assert (tmp_path / "ml-1m/README").read_text() == "terms"


def test_another_file_than_the_pinned_one_is_refused(host, tmp_path):
    host.body = make_zip({"ml-1m/ratings.dat": "changed"})
    with pytest.raises(UserError, match="is not the archive"):
        download.fetch_dataset("ml-1m", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_archive_put_there_by_hand_is_used(tmp_path, host):
    (tmp_path / "ml-1m.zip").write_bytes(ARCHIVE)
    download.fetch_dataset("ml-1m", tmp_path)
    assert host.ranges == [] and (tmp_path / "ml-1m/README").is_file()


def test_half_an_archive_put_there_by_hand_is_not_used(tmp_path, host):
    (tmp_path / "ml-1m.zip").write_bytes(ARCHIVE[:500])
    download.fetch_dataset("ml-1m", tmp_path)
    assert host.ranges and (tmp_path / "ml-1m/README").is_file()


def test_an_unreachable_host_is_explained(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "OFFICIAL", "127.0.0.1:9")
    with pytest.raises(UserError, match=r"put it at .*ml-1m\.zip"):
        download.fetch_dataset("ml-1m", tmp_path)


# --- unpacking -----------------------------------------------------------------------------------


def test_an_archive_that_would_fill_the_disk_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MAX_UNPACKED", 100)
    archive = tmp_path / "bomb.zip"
    archive.write_bytes(ARCHIVE)
    with pytest.raises(UserError, match="don't use it"):
        unpack_zip(archive, "ml-1m", tmp_path / "ml-1m")
    assert not (tmp_path / "ml-1m").exists()


def test_an_archive_without_the_folder_is_refused(tmp_path):
    (tmp_path / "other.zip").write_bytes(ARCHIVE)
    with pytest.raises(UserError, match="holds no folder ml-20m"):
        unpack_zip(tmp_path / "other.zip", "ml-20m", tmp_path / "ml-20m")
    assert [path.name for path in tmp_path.iterdir()] == ["other.zip"]


def test_a_symbolic_link_in_an_archive_becomes_a_plain_file(tmp_path):
    link = zipfile.ZipInfo("ml-1m/link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as zipped:
        zipped.writestr(link, "/etc/passwd")
    (tmp_path / "links.zip").write_bytes(content.getvalue())
    unpack_zip(tmp_path / "links.zip", "ml-1m", tmp_path / "ml-1m")
    found = tmp_path / "ml-1m" / "link"
    assert not found.is_symlink() and found.read_text() == "/etc/passwd"  # a plain file with this content


def test_an_archive_cannot_write_outside_its_folder(tmp_path):
    archive = tmp_path / "evil.zip"
    archive.write_bytes(make_zip({"ml-1m/../../evil": "x"}))
    with pytest.raises(UserError, match="outside"):
        unpack_zip(archive, "ml-1m", tmp_path / "in" / "ml-1m")
    assert not (tmp_path / "evil").exists() and not (tmp_path / "in" / "ml-1m").exists()
