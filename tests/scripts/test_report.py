"""The report of a run: its figures are the test's, its command repeats the run, and it loads nothing from outside."""

import json
import re
import shlex
from html import unescape
from pathlib import Path

import pandas as pd
import pytest
from helpers import SMALL, main_here, recommend_here, rows_of, test_metrics, train_here

from resultAnalyze import report
from resultAnalyze.run_files import Run, user_metrics
from utils.files import UserError

PRESETS = {
    "ncf": (),
    "ncf-ranking": ("--split", "cold-movies"),
    "transformer": ("--split", "leave-one-out", "--no-request-time"),
}


@pytest.fixture(scope="module", params=PRESETS)
def reported(request, places, tmp_path_factory) -> tuple[Path, str]:
    """A run, and its report as text."""
    preset, folder = request.param, tmp_path_factory.mktemp("reported")
    flags = ("--preset", preset, "--epochs", 2, *SMALL[preset], *PRESETS[preset])
    run = train_here(*places, "--run", folder / "run", *flags)
    main_here(report, "--run", run)
    return run, (run / "report.html").read_text(encoding="utf-8")


def commands(page: str) -> list[str]:
    return unescape(re.search("<pre>(.*?)</pre>", page, re.DOTALL)[1]).splitlines()


def test_the_figures_are_the_tests(reported):
    run, page = reported
    test = test_metrics(run)
    tables = pd.read_html(run / "report.html")
    best = tables[0].set_index(tables[0].columns[0])
    for name in ("RMSE",) if test["task"] == "rating" else ("HR@10", "NDCG@10", "RECALL@10"):
        assert float(best.loc[name, "this run"]) == pytest.approx(test[name.lower()], abs=1e-4)
        low, high = map(float, best.loc[name, "95 % interval"].split(" to "))
        assert low <= test[name.lower()] + 1e-4 and test[name.lower()] <= high + 1e-4 and low < high
    assert test["protocol"][1:] in unescape(page) and str(test["train_rows"]) in page


def test_metrics_of_users_are_made_from_the_lists_alone(reported):
    run, _ = reported
    test = test_metrics(run)
    if test["task"] == "ranking":
        by_user = user_metrics(Run.read(run))
        assert len(by_user) == test["users"]
        for name in by_user:
            assert by_user[name].mean() == pytest.approx(test[name])


def test_its_command_repeats_the_run(reported, tmp_path):
    run, page = reported
    words = shlex.split(commands(page)[0])
    assert words[:2] == ["python", "train.py"]
    again = train_here(*words[2:], "--run", tmp_path / "again")
    first, second = test_metrics(run), test_metrics(again)
    for name in ("wall_seconds",):
        first.pop(name), second.pop(name)
    assert first == second


def test_nothing_outside_is_asked_for(reported):
    """There is no script, and no address except format names inside pictures and anchors within the page."""
    _, page = reported
    assert "<script" not in page and "<link" not in page and page.count("<svg") >= 1
    assert all(target.startswith("#") for target in re.findall(r'(?:src|href)="([^"]*)"', page))
    assert "url(http" not in page and "@import" not in page


def test_lists_are_the_tested_ones_or_those_of_the_highest_predictions(reported, data):
    """They are for ten users from the first to the last; predictions use their training ratings."""
    run, page = reported
    users = re.findall(r"<h3>User (\d+)</h3>", page)
    assert len(users) == 10 and len(set(users)) == 10
    titles = dict(zip(data.movies["movie"].astype(str), data.movies["title"], strict=True))
    for user, part in zip(users, page.split("<h3>User ")[1:], strict=True):
        listed = [unescape(cell).removesuffix(" \u2713") for cell in re.findall(r"<td>\d+</td>\s*<td>(.*?)</td>", part)]
        assert len(listed) == 10
        if (run / "test_topn.csv").is_file():
            assert listed == [titles[row["movieId"]] for row in rows_of(run / "test_topn.csv") if row["userId"] == user]
        else:
            flags = ("--run", run, "--user", user, "--known", "train", "--format", "json", "--top-n", 27)
            unseen = [movie["title"] for movie in json.loads(recommend_here(*flags))["movies"]]
            found = [title for title in listed if title in unseen]
            assert found and found == unseen[: len(found)]


def test_a_run_without_a_test_has_no_report(places, tiny_run, tmp_path):
    final = train_here("--final", tiny_run, "--run", tmp_path / "final")
    with pytest.raises(UserError, match="has no test"):
        main_here(report, "--run", final)


def test_the_command_of_a_run_that_continued_names_the_earlier_one(tiny_run, tmp_path):
    run = train_here("--continue-from", tiny_run, "--epochs", 1, "--run", tmp_path / "run")
    main_here(report, "--run", run)
    words = shlex.split(commands((run / "report.html").read_text(encoding="utf-8"))[0])
    assert words[words.index("--continue-from") + 1] == str(tiny_run)
