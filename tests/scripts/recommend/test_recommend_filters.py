"""Lists restricted to movies by genre, year and id, and the most popular movies among them."""

import csv
import io
import itertools
from pathlib import Path

import pytest
from asking import RATED, ids_in
from helpers import recommend_here


def rows_for(*flags: object) -> list[dict[str, str]]:
    """The rows of the CSV format."""
    return list(csv.DictReader(io.StringIO(recommend_here(*flags, "--format", "csv"))))


# Flags, and the movies of the small data set that pass them.
FILTERS = {
    "--genres musical": {163},
    "--genres Musical,WAR": {163, 900},
    "--years 1999-2000": {900, 901},
    "--years 1995": {163},
    "--years 1999-": {900, 901},
    "--years=-1961": {2, 9},
    "--exclude 2,9,16": {*range(23, 177, 7), 900, 901},
    "--candidates 900,2,9,16,23": {2, 9, 16, 23, 900},
    "--candidates some": {30, 37, 163},
    "--genres comedy --years 1960-1969 --exclude some --candidates 30,44,51,163,2": {2, 44, 51},
}
ASKED = {
    "a user": ("--user", 4),
    "some": ("--users", "4,1"),
    "all": ("--all-users",),
    "seen": ("--all-users", "--include-seen"),
    "new": ("--liked", "2,23"),
    "similar": ("--similar-to", 37),
}


@pytest.mark.parametrize("filters", FILTERS)
@pytest.mark.parametrize("asked", ASKED)
def test_filtered_lists_are_the_whole_lists_filtered_by_hand(tiny_run, tmp_path, monkeypatch, asked, filters):
    monkeypatch.chdir(tmp_path)
    Path("some").write_text("30\n37,163\n", encoding="utf-8")
    flags = ("--run", tiny_run, "--top-n", 27, *ASKED[asked])
    expected, left = [], FILTERS[filters]
    for _, rows in itertools.groupby(rows_for(*flags), key=lambda row: next(iter(row.values()))):
        kept = [row for row in rows if int(row["movieId"]) in left]
        expected += [row | {"rank": str(rank)} for rank, row in enumerate(kept, start=1)]
    assert rows_for(*flags, *filters.split()) == expected


def test_the_most_popular_movies_are_those_that_pass_the_filters(tiny_run, capsys):
    """Three such movies are left for user 4, fewer than wanted; the user has rated the fourth."""
    some = sorted(set(range(2, 177, 7)) - RATED[4])[:3]
    asked = ("--user", 4, "--candidates", ",".join(map(str, [*some, min(RATED[4])])))
    line = recommend_here("--run", tiny_run, *asked).splitlines()[-1]
    assert line.startswith("Top 3 recommended movie IDs for user 4: [") and set(ids_in(line)) == set(some)
    said = capsys.readouterr().err
    assert "Overlap with the 3 most popular movies that are left: 3 of 3." in said
    assert "Fewer than 10 movies are left." in said


def test_seen_movies_are_among_the_most_popular_where_they_are_recommended(tiny_run, capsys):
    recommend_here("--run", tiny_run, "--user", 4, "--top-n", 27, "--include-seen")
    assert "the 27 most popular movies that are left: 27 of 27." in capsys.readouterr().err


def test_a_user_who_has_rated_all_that_pass_has_an_empty_list(tiny_run, capsys):
    line = recommend_here("--run", tiny_run, "--user", 4, "--candidates", min(RATED[4])).splitlines()[-1]
    assert line == "Top 0 recommended movie IDs for user 4: []"
    said = capsys.readouterr().err
    assert "Fewer than 10 movies are left" in said and "overlap" not in said


def test_too_few_similar_movies_are_noted(tiny_run, tmp_path, capsys):
    said = recommend_here("--run", tiny_run, "--similar-to", 9, "--top-n", 100, "--output", tmp_path / "similar")
    assert said == f"Wrote the movies most similar to 9 to {tmp_path / 'similar'}.\n"
    assert (tmp_path / "similar").read_text().splitlines()[-1].startswith("Top 26 movie IDs most similar to movie 9")
    assert "Fewer than 100 other movies are left." in capsys.readouterr().err
