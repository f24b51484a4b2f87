"""Writing and reading data that is not MovieLens."""

from pathlib import Path

import pandas as pd

from utils.ratings import read_ratings

CSV_RATINGS = "userId,movieId,rating,timestamp\n"
CSV_MOVIES = "movieId,title,genres\n"


def csv_set(
    folder: Path, ratings: str, movies: str = CSV_MOVIES + "1,Heat (1995),Crime\n2,Big (1988),Comedy\n"
) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "ratings.csv").write_text(ratings, encoding="utf-8")
    (folder / "movies.csv").write_text(movies, encoding="utf-8")
    return folder


def ratings_of(tmp_path: Path, text: str | bytes, **options) -> pd.DataFrame:
    path = tmp_path / "ratings.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_ratings(path, **options)
