"""Times in every unit, and dates, become seconds; mixed times and values that are no times are reported."""

import warnings

import numpy as np
import pytest
from own_data import CSV_RATINGS, ratings_of

from utils.files import Note, UserError

SECONDS = [879024994, 1523092443, 978300760]


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ([str(t) for t in SECONDS], None),
        ([f"{t}.0" for t in SECONDS], None),
        ([f"{t}644" for t in SECONDS], "milliseconds"),
        ([f"{t}644123" for t in SECONDS], "microseconds"),
        ([f"{t}644123999" for t in SECONDS], "nanoseconds"),
        (["1997-11-08 21:36:34", "2018-04-07 09:14:03", "2000-12-31 22:12:40"], "the times are dates"),
        (["1997-11-08T21:36:34Z", "2018-04-07T09:14:03Z", "2000-12-31T22:12:40Z"], "the times are dates"),
        (["1997-11-08T23:36:34+02:00", "2018-04-07T09:14:03Z", "2000-12-31T22:12:40Z"], "the times are dates"),
    ],
)
def test_times_are_read_in_every_unit(tmp_path, written, words):
    text = CSV_RATINGS + "".join(f"7,{k},4,{time}\n" for k, time in enumerate(written))
    if words:
        with pytest.warns(Note, match=words):
            table = ratings_of(tmp_path, text)
    else:
        table = ratings_of(tmp_path, text)
    assert table["time"].tolist() == SECONDS and table["time"].dtype == np.int64


def test_a_moment_as_a_whole_number_is_a_date(tmp_path):
    """Otherwise it would be milliseconds in the year 2602."""
    with pytest.warns(Note, match="the times are dates such as 19971114203634"):
        table = ratings_of(tmp_path, CSV_RATINGS + "7,1,4,19971114203634\n7,2,4,20001231221240\n")
    assert table["time"].tolist() == [879539794, 978300760]


@pytest.mark.parametrize("written", [["1997-11-14", "1970-01-02"], ["19971114", "19700102"]])
def test_days_are_read_as_their_first_second(tmp_path, written):
    with pytest.warns(Note, match="the times are dates"):
        table = ratings_of(tmp_path, CSV_RATINGS + "".join(f"7,{k},4,{day}\n" for k, day in enumerate(written)))
    assert table["time"].tolist() == [879465600, 86400]


def test_numbers_that_are_no_days_stay_seconds(tmp_path):
    with pytest.warns(Note, match="the times, up to 19971399, count as seconds: if they are days or years"):
        table = ratings_of(tmp_path, CSV_RATINGS + "7,1,4,19971114\n7,2,4,19971399\n7,3,4,0\n7,4,4,-5\n")
    assert table["time"].tolist() == [19971114, 19971399, 0, -5]


@pytest.mark.parametrize(
    ("times", "words"),
    [
        (["978300760000", "978300760"], r"line 3: the time 978300760 is not in milliseconds"),
        (["978300760", "978300761", "1e30"], "line 4: the time 1000000000000000.* is not in seconds"),
        (["978300760", "1523092443644", "978300761"], "line 3: the time 1523092443644 is not in seconds"),
        (["978300760", "8750", "978300761"], "line 3: the time 8750 is not in seconds since 1970"),
        (["131234567890000000", "131234567990000000"], "is not in nanoseconds since 1970"),
        (["978300760", "978300761", "soon"], "line 4: '7,2,4,soon': the time 'soon' is neither"),
        (["1997-11-14", "879465600"], r"line 3: '7,1,4,879465600': its time is not written as in the other lines"),
        (
            ["14/11/1997", "15/11/1997"],
            r"line 2: '7,0,4,14/11/1997': the time '14/11/1997' is neither a number nor a date",
        ),
        (["1997-11-14", "soon"], r"line 3: '7,1,4,soon': the time 'soon' is neither"),
        (["1997-11-14", ""], r"line 3: '7,1,4,': the time is missing"),
    ],
)
def test_times_that_are_mixed_or_none_are_named(tmp_path, times, words):
    with warnings.catch_warnings(), pytest.raises(UserError, match=words):
        warnings.simplefilter("ignore", Note)
        ratings_of(tmp_path, CSV_RATINGS + "".join(f"7,{k},4,{time}\n" for k, time in enumerate(times)))


@pytest.mark.parametrize("cut", ["97830076", "9", "2000-12-31"])
def test_a_last_line_that_is_cut_inside_its_time_is_named(tmp_path, cut):
    whole = "2000-12-31 22:12:40" if "-" in cut else "978300760"
    with warnings.catch_warnings(), pytest.raises(UserError, match=r"line 4: .*cut off inside its time"):
        warnings.simplefilter("ignore", Note)
        ratings_of(tmp_path, CSV_RATINGS + f"7,1,4,{whole}\n7,2,4,{whole}\n7,3,4,{cut}")
