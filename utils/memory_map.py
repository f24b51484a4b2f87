#!/usr/bin/env python3
"""Write a data set so that its ratings are memory-mapped: read from disk where they are used, not kept in memory.

    python utils/memory_map.py --data dataset/ml-32m --output dataset/ml-32m-mapped
    python train.py --data dataset/ml-32m-mapped

For very many ratings; docs/scale.md says how much memory it saves. The folder is used like any other. It holds
movies.csv and users.csv, in the order of the indices, and one file of little-endian numbers for each column of the
ratings, which are sorted by user and time: ratings_user.bin and ratings_movie.bin (indices, int64), ratings_rating.bin
(float32) and ratings_time.bin (seconds since 1970, int64); ratings.json says how many there are. Text files are read
as a whole, so data whose text does not fit into memory must be written by a program of its own, as
resultAnalyze/synthetic.py --mapped does.

The splits random, cold-movies and cold-users draw by row number. As the rows are in another order here, they draw other
ratings than from the text files, and the protocol says so.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import pandas as pd

from utils.cli import display_path, run
from utils.config import DEFAULT_DATA, DataFolder, Encoding, Folder, parse
from utils.files import DATASET, UserError, write_table
from utils.rating_columns import MAPPED, write_mapped
from utils.readers import FORMATS, RawData, read_dataset


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
    make_room(settings.output)
    write_table(settings.output / "movies.csv", movies_table(data))
    write_table(settings.output / "users.csv", users_table(data))
    ids = data.columns.user_ids, data.movies["movie"].tolist()
    n = write_mapped(settings.output, data.columns.chunks_in_order(), *ids)
    print(f"Wrote {n:,} ratings to {display_path(settings.output)}: name it with --data.")


def make_room(folder: Path) -> None:
    """Leave no ratings in the folder: earlier ones of this script are invalidated, other data is refused."""
    if others := [file.name for layout in FORMATS for file in folder.glob(layout.ratings) if file.name != MAPPED]:
        raise UserError(f"--output {folder} holds other data ({others[0]}): name another folder.")
    (folder / MAPPED).unlink(missing_ok=True)


def movies_table(data: RawData) -> pd.DataFrame:
    """movies.csv, in the order of the indices."""
    genres = [json.dumps(one, ensure_ascii=False) for one in data.movies["genres"]]  # safe for any character in them
    table = data.movies.assign(genres=genres)
    return table.rename(columns={"movie": "movieId"})


def users_table(data: RawData) -> pd.DataFrame:
    """users.csv: the users with ratings, in the order of the indices, with their attributes."""
    table = data.users.drop_duplicates("user").set_index("user").reindex(data.columns.user_ids)
    return table.rename_axis("userId").reset_index()


if __name__ == "__main__":
    run(main)
