"""Metadata files: kinds of columns, what can't be read, and the numbers that columns become."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.columns import Column, main_texts, make_block, multi_hot, read_columns
from utils.files import Note, UserError
from utils.movie_files import read_movies

MOVIES = pd.DataFrame(
    {
        "movie": [1, 7, 9],
        "title": ["Heat (1995)", "Casino (1995)", "Alien (1979)"],
        "genres": [("Action", "Crime"), (), ("Horror",)],
    }
)
MINE = '''movieId,title,director,mood:category,runtime,plot:text,votes
7,Casino (1995),Martin Scorsese,dark|long,178,"Las Vegas, and ""trouble""",3
1,Heat (1995),Michael Mann| Someone ,dark,,A robber meets a policeman.,5
'''


def written(folder, text: str):
    path = folder / "mine.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_columns_have_the_kind_that_the_header_names_or_that_of_a_known_name(tmp_path):
    with pytest.warns(Note, match=r"columns without a kind are ignored \(votes\): .* as in votes:names"):
        columns = read_columns(written(tmp_path, MINE), MOVIES)
    assert [(one.name, one.kind) for one in columns] == [
        *(("director", "names"), ("mood", "category"), ("runtime", "number"), ("plot", "text")),
    ]
    director, mood, runtime, plot = (one.values for one in columns)
    assert director == [("Michael Mann", "Someone"), ("Martin Scorsese",), ()]  # in the order of the movies
    assert mood == [("dark",), ("dark", "long"), ()] and plot[1:] == ['Las Vegas, and "trouble"', ""]
    assert np.isnan(runtime[0]) and runtime[1] == 178 and np.isnan(runtime[2])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("title,director\nHeat,Mann\n", "names no column of movie ids"),
        ("movieId,director\n1,Mann\n1,Mann\n", "several lines for one movie"),
        ("movieId,director\n3,Mann\n", "none of the data's movies, such as 1"),
        ("movieId,director\n1\n", "row 2 has 1 fields, not 2"),
        ('movieId,director\n1,"Mann\n', "misplaced quotes"),
        ("movieId,runtime\n1,long\n", "the runtime 'long' is not a valid number"),
        ("movieId,runtime\n1,inf\n", "the runtime 'inf' is not a valid number"),
        ("movieId,runtime\n1,1e39\n", "the runtime '1e39' is not a valid number"),
        ("movieId,mood:feeling\n1,dark\n", "mood:feeling is not a kind of column: choose from text"),
        ("movieId,popularity:number\n1,3\n", "a column can't be called 'popularity'"),
        ("movieId,mood:names,mood:names\n1,a,b\n", "two columns for 'mood'"),
        ("movieId,title,director\n1,Toy Story (1995),Mann\n", "made for other movies: its 'Toy Story"),
    ],
)
def test_what_can_not_be_used_is_a_sentence(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        read_columns(written(tmp_path, text), MOVIES)


def test_names_of_one_movie_alone_say_nothing_of_others():
    values = [("Mann", "Pacino"), ("Pacino", "De Niro"), ("De Niro",)]
    assert make_block(Column("cast", "names", values)).vocabulary == ("De Niro", "Pacino")
    assert make_block(Column("cast", "category", values)).vocabulary == ("De Niro", "Mann", "Pacino")


def test_too_many_categories_are_refused():
    with pytest.raises(UserError, match="1,200 categories: change its kind to names"):
        make_block(Column("shelf", "category", [(str(k),) for k in range(1200)]))


@given(st.lists(st.lists(st.sampled_from("abcdef"), max_size=4), min_size=1, max_size=6))
def test_multi_hot_holds_each_known_word_once(values):
    found = multi_hot(values, "abc").toarray()
    assert found.shape == (len(values), 3)
    for row, words in zip(found, values, strict=True):
        assert row.tolist() == [float(word in words) for word in "abc"]


def test_texts_are_titles_sentences_or_a_column():
    columns = [Column("director", "names", [("Michael Mann",), (), ()]), Column("plot", "text", ["A robber.", "", ""])]
    assert main_texts("title", MOVIES, columns) == MOVIES["title"].tolist()
    assert main_texts("metadata", MOVIES, columns) == [
        *("Heat (1995). Action, Crime. Directed by Michael Mann.", "Casino (1995).", "Alien (1979). Horror."),
    ]
    assert main_texts("plot", MOVIES, columns)[:2] == ["Heat (1995). A robber.", "Casino (1995)"]
    with pytest.raises(UserError, match="no such text column: choose title, metadata or plot"):
        main_texts("director", MOVIES, columns)
    with pytest.raises(UserError, match="name one with --metadata"):
        main_texts("metadata", MOVIES, [])


def test_new_movies_are_read_as_movies_are(tmp_path):
    found = read_movies(written(tmp_path, 'movieId,title,year,genres,genre\n a1 ,"Dune: 2",2024,Sci-Fi|War,x\nb,,,,\n'))
    assert found["movie"].tolist() == ["a1", "b"] and found["title"].tolist() == ["Dune: 2 (2024)", ""]
    assert found["genres"].tolist() == [("Sci-Fi", "War"), ()] and found["year"].isna().tolist() == [False, True]
    with pytest.raises(UserError, match="no column of titles"):
        read_movies(written(tmp_path, "movieId,name of it\n1,x\n"))


@pytest.mark.parametrize(
    "header",
    [
        *("movieId,Director,Runtime", "item_id:token,director : names,runtime", "Movie ID,director,runtime,,"),
        *("movieId;director;runtime", "\ufeffmovieId,director,runtime:number"),
    ],
)
def test_headers_are_read_however_they_are_written(tmp_path, header):
    separator, more = ";" if ";" in header else ",", ",," if header.endswith(",") else ""
    row = separator.join(("7", "Martin Scorsese", "178")) + more
    columns = read_columns(written(tmp_path, f"{header}\n{row}\n"), MOVIES)
    assert [(one.name, one.kind) for one in columns] == [("director", "names"), ("runtime", "number")]
    assert columns[0].values[1] == ("Martin Scorsese",) and columns[1].values[1] == 178


def test_a_block_that_says_nothing_is_known_of_no_movie():
    blocks = [make_block(Column("director", "names", [("a",), ("b",), ()]))]
    blocks.append(make_block(Column("pages", "number", [float("nan")] * 3)))
    assert [block.n_known() for block in blocks] == [0, 0]
