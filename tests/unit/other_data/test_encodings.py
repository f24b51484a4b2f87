"""Text in other encodings than UTF-8, declared or not."""

import shutil

import pytest
from own_data import CSV_RATINGS, csv_set

from utils.files import UserError
from utils.readers import read_dataset

TITLES = {
    "cp1251": "Брат",
    "gbk": "霸王别姬",
    "cp1252": "Ocean’s Eleven",
    "utf-16": "Amélie",
    "shift_jis": "もののけ姫",
}


@pytest.mark.parametrize("encoding", TITLES)
def test_text_in_a_declared_encoding_is_read(tmp_path, encoding):
    folder = csv_set(tmp_path, "")
    (folder / "ratings.csv").write_text("userId,movieId,rating\nю,1,5\n".replace("ю", "u"), encoding=encoding)
    (folder / "movies.csv").write_text(f"movieId,title\n1,{TITLES[encoding]}\n", encoding=encoding)
    assert read_dataset(folder, encoding).movies["title"].tolist() == [TITLES[encoding]]
    with pytest.raises(UserError, match=r"line [12]: the byte 0x.* is not UTF-8: .*--encoding"):
        read_dataset(folder)


@pytest.mark.parametrize("title", ["Брат и сестра", "霸王别姬", "Ocean’s Eleven"])
def test_no_text_is_taken_for_latin_1_that_does_not_look_like_it(tiny, tmp_path, title):
    folder = shutil.copytree(tiny, tmp_path / "ml")
    encoding = next(name for name, text in TITLES.items() if text[:2] == title[:2])
    with (folder / "movies.dat").open("ab") as file:
        file.write(f"950::{title}::War\n".encode(encoding))
    content = (folder / "movies.dat").read_bytes().replace(b"Mis\xe9rables", b"Miserables")
    (folder / "movies.dat").write_bytes(content)
    with pytest.raises(UserError, match=r"movies.dat, line 28: the byte 0x.. is not UTF-8: .*--encoding"):
        read_dataset(folder)
    assert read_dataset(folder, encoding).movies["title"].iloc[-1] == title


def test_utf_8_with_one_byte_of_latin_1_is_never_read_half_and_half(tiny, tmp_path):
    folder = shutil.copytree(tiny, tmp_path / "ml")
    content = (folder / "movies.dat").read_bytes()  # with "Misérables" in latin-1, in line 24
    (folder / "movies.dat").write_bytes(content + "950::Amélie::Comedy\n".encode())
    with pytest.raises(UserError, match=r"movies.dat, line 24: the byte 0xe9 is not UTF-8"):
        read_dataset(folder)


def test_a_faulty_byte_of_a_declared_encoding_is_named(tmp_path):
    folder = csv_set(tmp_path, CSV_RATINGS + "7,1,5,978300009\n")
    (folder / "movies.csv").write_bytes(b"movieId,title\n1,Heat\n2,\xff\xff\n")
    with pytest.raises(UserError, match=r"movies.csv, line 3: the byte 0xff is not gbk"):
        read_dataset(folder, "gbk")


def test_latin_1_for_a_file_of_windows_is_refused(tmp_path):
    folder = csv_set(tmp_path, CSV_RATINGS + "7,1,5,978300009\n")
    (folder / "movies.csv").write_bytes(b"movieId,title\n1,Heat\n2,Ocean\x92s Eleven\n")
    with pytest.raises(UserError, match=r"line 3: read as latin-1, it has control characters: .* such as cp1252"):
        read_dataset(folder, "latin-1")
    assert read_dataset(folder, "cp1252").movies["title"].tolist() == ["Heat", "Ocean\u2019s Eleven"]


@pytest.mark.parametrize("encoding", ["latin2", "latin5", "iso8859-15"])
def test_other_latins_are_not_taken_for_latin_1(tiny, tmp_path, encoding):
    title = {"latin2": "Człowiek z żelaza", "latin5": "Şaşkın Dedektif", "iso8859-15": "Le cœur"}[encoding]
    folder = shutil.copytree(tiny, tmp_path / "ml")
    content = (folder / "movies.dat").read_bytes().replace(b"Mis\xe9rables", b"Miserables")
    (folder / "movies.dat").write_bytes(content + f"950::{title}::War\n".encode(encoding))
    with pytest.raises(UserError, match=r"line 28: the byte 0x.. is not UTF-8"):
        read_dataset(folder)
    assert read_dataset(folder, encoding).movies["title"].iloc[-1] == title


def test_a_declared_encoding_is_for_the_files_that_are_not_utf_8(tmp_path):
    folder = csv_set(tmp_path, CSV_RATINGS + "7,1,5,978300009\n")
    (folder / "movies.csv").write_text("movieId,title\n1,Amélie\n", encoding="utf-16")
    assert read_dataset(folder, "utf-16").movies["title"].tolist() == ["Amélie"]
