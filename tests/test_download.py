"""Downloads: resumed, verified, unpacked aside; a server on this machine plays the official host."""

import hashlib
import io
import shutil
import ssl
import stat
import subprocess
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from utils import download
from utils.files import UserError


def make_zip(files: dict[str, str]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as zipped:
        for name, text in files.items():
            zipped.writestr(name, text)
    return content.getvalue()


ARCHIVE = make_zip({"ml-1m/ratings.dat": "1::2::3::4\n" * 1000, "ml-1m/README": "terms", "other/file": "not ours"})


class Host:
    """Serves one body; can cut answers short and honours ranges, as the official host does."""

    def __init__(self, body: bytes, certificate: str | None = None):
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


@pytest.fixture
def host(monkeypatch):
    """The official host, speaking http; the archive it serves has the pinned checksum."""
    host = Host(ARCHIVE)
    monkeypatch.setattr(download, "OFFICIAL", host.address)
    checksum = hashlib.md5(ARCHIVE, usedforsecurity=False).hexdigest()
    monkeypatch.setitem(download.ARCHIVES, "ml-1m", ("ml-1m", checksum))
    yield host
    host.server.shutdown()


def test_only_the_data_s_folder_is_unpacked(host, tmp_path):
    folder, source = download.fetch_dataset("ml-1m", tmp_path)
    assert folder == tmp_path / "ml-1m" and source == "the official archive"
    assert sorted(path.name for path in folder.iterdir()) == ["README", "ratings.dat"]
    assert [path.name for path in tmp_path.iterdir()] == ["ml-1m"]  # no archive, no part, no scratch folder


def test_what_is_there_is_not_downloaded_again(host, tmp_path):
    download.fetch_dataset("ml-1m", tmp_path)
    asked = len(host.ranges)
    assert download.fetch_dataset("ml-1m", tmp_path) == (tmp_path / "ml-1m", "already there")
    assert len(host.ranges) == asked


def test_a_cut_download_goes_on_where_it_stopped(host, tmp_path):
    host.cut_after = 300
    with pytest.raises(UserError, match="cut after 300 of"):
        download.fetch_dataset("ml-1m", tmp_path)
    assert not (tmp_path / "ml-1m").exists() and not (tmp_path / "ml-1m.zip").exists()
    host.cut_after = None
    download.fetch_dataset("ml-1m", tmp_path)
    assert host.ranges[-1] == 300
    assert (tmp_path / "ml-1m/ratings.dat").read_text() == "1::2::3::4\n" * 1000


def test_a_wrong_part_is_thrown_away(host, tmp_path):
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


def test_half_an_archive_put_there_by_hand_is_not(tmp_path, host):
    (tmp_path / "ml-1m.zip").write_bytes(ARCHIVE[:500])
    download.fetch_dataset("ml-1m", tmp_path)
    assert host.ranges and (tmp_path / "ml-1m/README").is_file()


@pytest.mark.skipif(not shutil.which("openssl"), reason="no openssl to make a certificate with")
@pytest.mark.parametrize("pinned", [True, False])
def test_a_bad_certificate_is_accepted_only_with_a_pinned_checksum(host, tmp_path, monkeypatch, capsys, pinned):
    key = tmp_path / "key.pem"
    certificate = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=127.0.0.1", "-days", "1"]
    subprocess.run([*certificate, "-keyout", key, "-out", tmp_path / "c.pem"], check=True, capture_output=True)
    key.write_text(key.read_text() + (tmp_path / "c.pem").read_text())
    secure = Host(ARCHIVE, str(key))
    monkeypatch.setattr(download, "OFFICIAL", secure.address)
    if pinned:
        download.fetch_dataset("ml-1m", tmp_path / "to")
        assert "could not be verified" in capsys.readouterr().out
        assert (tmp_path / "to/ml-1m/README").is_file()
    else:
        monkeypatch.setitem(download.ARCHIVES, "ml-1m", ("ml-1m", None))
        with pytest.raises(UserError, match="certificate"):
            download.fetch_dataset("ml-1m", tmp_path / "to")
        assert secure.ranges == []
    secure.server.shutdown()


def test_an_unreachable_host_is_explained(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "OFFICIAL", "127.0.0.1:9")
    with pytest.raises(UserError, match=r"put it at .*ml-1m\.zip"):
        download.fetch_dataset("ml-1m", tmp_path)


def test_ml_100k_falls_back_to_the_package(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(download, "OFFICIAL", "127.0.0.1:9")
    folder, source = download.fetch_dataset("ml-100k", tmp_path)
    assert "recbole 1.2.1" in source and "can't be had" in capsys.readouterr().out
    assert sorted(path.suffix for path in folder.iterdir()) == [".inter", ".item", ".kg", ".link", ".user"]


def test_a_package_with_another_hash_is_refused(tmp_path):
    wheel = download.WheelFolder("six", "1.16.0", "0" * 64, "six")
    with pytest.raises(UserError, match="another hash"):
        download.fetch_wheel_folder(wheel, tmp_path / "six")
    assert not (tmp_path / "six").exists()


def test_a_package_that_is_not_there_is_explained(tmp_path):
    wheel = download.WheelFolder("recbole", "0.0.0.1", "0" * 64, "recbole")
    with pytest.raises(UserError, match="can't be fetched with pip"):
        download.fetch_wheel_folder(wheel, tmp_path / "x")


def test_an_archive_that_would_fill_the_disk_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "MOST_BYTES", 100)
    archive = tmp_path / "bomb.zip"
    archive.write_bytes(ARCHIVE)
    with pytest.raises(UserError, match="don't use it"):
        download._unpack(archive, "ml-1m", tmp_path / "ml-1m")
    assert not (tmp_path / "ml-1m").exists()


def test_a_symbolic_link_in_an_archive_leads_nowhere(tmp_path):
    link = zipfile.ZipInfo("ml-1m/link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as zipped:
        zipped.writestr(link, "/etc/passwd")
    (tmp_path / "links.zip").write_bytes(content.getvalue())
    download._unpack(tmp_path / "links.zip", "ml-1m", tmp_path / "ml-1m")
    found = tmp_path / "ml-1m" / "link"
    assert not found.is_symlink() and found.read_text() == "/etc/passwd"  # a file with these letters


def test_an_archive_can_not_write_outside_its_folder(tmp_path):
    archive = tmp_path / "evil.zip"
    archive.write_bytes(make_zip({"ml-1m/../../evil": "x"}))
    with pytest.raises(UserError, match="outside"):
        download._unpack(archive, "ml-1m", tmp_path / "in" / "ml-1m")
    assert not (tmp_path / "evil").exists() and not (tmp_path / "in" / "ml-1m").exists()
