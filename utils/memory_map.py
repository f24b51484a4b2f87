#!/usr/bin/env python3
"""Write a data set so that its ratings are memory-mapped: read from disk where they are used, not kept in memory.

    python utils/memory_map.py --data dataset/ml-32m --output dataset/ml-32m-mapped
    python train.py --data dataset/ml-32m-mapped

For data larger than memory. All scripts read the folder as they read any other. It holds movies.csv and users.csv, in
the order of the indices, and of the ratings, user after user and oldest first, a file for each column, of little-endian
numbers: ratings_user.bin and ratings_movie.bin (indices, int64), ratings_rating.bin (float32) and ratings_time.bin
(seconds since 1970, int64); ratings.json says how many there are. Text is read whole, so that data whose text does not
fit into memory has to be written by a program of its own, as resultAnalyze/synthetic.py --mapped does.

A random split draws row numbers. As the rows stand in another order here, it draws others than of the text files.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import pandas as pd

from utils.cli import display_path, run
from utils.config import DEFAULT_DATA, DataFolder, Encoding, Folder, parse
from utils.files import DATASET, UserError
from utils.rating_columns import write_mapped
from utils.readers import MovieLens, read_dataset
from utils.runs import write_table


@dataclass(frozen=True)
class Settings:
    data: DataFolder = DEFAULT_DATA
    output: Folder = DATASET / "mapped"
    """the folder to write"""
    encoding: Encoding = None


def main() -> None:
    settings = parse(Settings, __doc__)
    if settings.output.resolve() == settings.data.resolve():
        raise UserError("--output is the folder of the data itself: name another one.")
    data = read_dataset(settings.data, settings.encoding)
    write_table(settings.output / "movies.csv", movies_table(data))
    write_table(settings.output / "users.csv", users_table(data))
    n = write_mapped(settings.output, data.columns.by_user_and_time())
    print(f"Wrote {n:,} ratings to {display_path(settings.output)}: name it with --data.")


def movies_table(data: MovieLens) -> pd.DataFrame:
    """movies.csv, in the order of the indices."""
    table = data.movies.assign(genres=data.movies["genres"].str.join("|"))
    return table.rename(columns={"movie": "movieId"})


def users_table(data: MovieLens) -> pd.DataFrame:
    """users.csv: the users with ratings, in the order of the indices, and what is known of them."""
    table = data.users.drop_duplicates("user").set_index("user").reindex(data.columns.user_ids)
    return table.rename_axis("userId").reset_index()


if __name__ == "__main__":
    run(main)
