"""Requests whose flags do not fit together or mean nothing are refused with a remedy."""

import itertools

import pytest
from asking import SCRIPT, refusal
from helpers import recommend_here

from utils.files import UserError


def test_an_encoding_that_nothing_is_read_with_is_refused(tiny_run):
    with pytest.raises(UserError, match="--encoding: no file is read with it"):
        recommend_here("--run", tiny_run, "--user", 4, "--encoding", "gbk")


REQUESTS = {
    "--user": "4",
    "--users": "4,7",
    "--all-users": None,
    "--liked": "2",
    "--ratings": "one.csv",
    "--similar-to": "2",
    "--export-vectors": "v.npz",
}
UNUSED = {
    "--liked": ("--known all", "--known train", "--at 2003-02-28"),
    "--ratings": ("--known all", "--known train"),
    "--similar-to": ("--known all", "--known train", "--include-seen", "--predictions-from run", "--at 2003-02-28"),
    "--export-vectors": (
        *("--include-seen", "--predictions-from run", "--top-n 5", "--format csv", "--output file"),
        *("--genres Drama", "--years 1994", "--exclude 2", "--candidates 2"),
    ),
}
EMPTY = ("", " ", ",", "1,,2", "1,", "\n")


def words_of(flag: str) -> tuple[str, ...]:
    return (flag,) if REQUESTS[flag] is None else (flag, REQUESTS[flag])


@pytest.mark.parametrize(("one", "other"), list(itertools.combinations(REQUESTS, 2)))
def test_one_request_at_a_time(one, other):
    said = refusal("nowhere", *words_of(other), *words_of(one))
    assert said.endswith("ask for different recommendations: give one of them.")
    assert said.startswith(f"{one} and {other} ")


@pytest.mark.parametrize(("flag", "unused"), [(flag, unused) for flag, all_of in UNUSED.items() for unused in all_of])
def test_flags_that_would_be_ignored_are_refused(flag, unused):
    said = refusal("nowhere", *words_of(flag), *unused.split())
    assert said == f"{flag} does not support {unused.split()[0]}: leave it out."


@pytest.mark.parametrize("flag", ["--users", "--liked", "--genres", "--exclude", "--candidates"])
@pytest.mark.parametrize("value", EMPTY, ids=repr)
def test_empty_values_of_lists_are_refused(tiny_run, flag, value):
    assert flag in refusal(tiny_run, flag, value)


@pytest.mark.parametrize("flag", ["--user", "--similar-to", "--years"])
def test_empty_values_are_refused(flag):
    assert refusal("nowhere", flag, " ") == f"{flag} is empty: give it a value or leave it out."


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--user", "2"), "User '2' has no ratings in tiny .*: for a new user, name some movies with --liked"),
        (("--user", "1,4,7"), "User '1,4,7' has no ratings in tiny .*: for several users, --users 1,4,7"),
        (("--user", "None"), "User 'None' has no ratings in tiny"),
        (("--users", "1,2,4,x"), "Users '2', 'x' have no ratings in tiny .*: for a new user"),
        (("--users", "1,5,6,8,9,11,12"), r"Users '5', '6', '8', '9', '11', \.\.\. have no ratings in tiny"),
        (("--users", "1,4,7,4,1"), "--users names 1, 4 more than once: name each user once"),
        (("--users", "users.txt"), "There is no file users.txt: check the path"),
        (("--users", "empty"), "empty is empty"),
        (("--users", "latin-1"), "latin-1, line 1: the byte 0xfc is not UTF-8"),
        (("--exclude", "gap"), "--exclude 'gap' lacks a value"),
        (("--liked", "2,5,77"), "tiny has no movie 5, 77"),
        (("--similar-to", 3), "tiny has no movie 3"),
        (("--ratings", "two.csv"), "two.csv holds 2 users"),
        (("--genres", "Drama,Noir"), "tiny has no genre Noir: choose from Comedy, Drama, Musical, War"),
        (("--exclude", "2,3"), "tiny has no movie 3"),
        (("--candidates", "2,3,4"), "tiny has no movie 3, 4"),
        (("--years", "1999-1990"), "--years '1999-1990' is no year or range: write 1994, 1990-1999 or 1990-"),
        (("--years", "abc"), "--years 'abc' is no year"),
        (("--years", "-"), "--years '-' is no year"),
        (("--years", "1990-1995-1999"), "is no year"),
        (("--years", "٢٠٠٠"), "is no year"),
        (("--years", "1900-1950"), "No movie of tiny passes the filters: change --genres, --years"),
        (("--genres", "War", "--exclude", "900", "--all-users"), "No movie of tiny passes the filters"),
        (("--similar-to", 9, "--candidates", 9), "The filters leave no movie but 9 itself"),
        (("--export-vectors", "vectors.npy"), "--export-vectors vectors.npy: name a file that ends in .npz"),
        (("--at", "2003-02-28"), "--at: this model does not use the time of a request: leave it out"),
        (("--export-vectors", "vectors"), "--export-vectors vectors: name a file that ends in .npz"),
    ],
    ids=str,
)
def test_wrong_requests_are_named(tiny_run, tmp_path, monkeypatch, flags, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "two.csv").write_text("userId,movieId,rating\n7,2,5\n8,9,5\n")
    (tmp_path / "empty").write_text("\n\n")
    (tmp_path / "gap").write_text("2\n,9\n")
    (tmp_path / "latin-1").write_bytes("ü\n".encode("latin-1"))
    with pytest.raises(UserError, match=words):
        recommend_here("--run", tiny_run, *flags)


def test_refusals_of_the_command_are_one_sentence(run_script, tiny_run):
    done = run_script(SCRIPT, "--run", tiny_run, "--user", 4, "--liked", 2, code=1)
    assert done.stderr == "error: --user and --liked ask for different recommendations: give one of them.\n"
    assert done.stdout == ""
