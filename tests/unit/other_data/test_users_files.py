"""Files of users: ages, and ids that are not those of the ratings."""

import numpy as np
import pytest
from own_data import CSV_RATINGS, csv_set

from Models.ratings_data import demographics
from utils.files import Note, UserError
from utils.readers import read_dataset


def test_age_groups_are_a_category(tmp_path):
    folder = csv_set(tmp_path, CSV_RATINGS + "".join(f"{user},1,5,978300009\n" for user in range(1, 5)))
    (folder / "users.csv").write_text("userId,age\n1,25-34\n2,18-24\n3,25-34\n4,\n")
    data = read_dataset(folder)
    found = demographics(data.users, np.array([1, 2, 3, 4]))
    assert found.to_numpy().tolist() == [[0, 1], [1, 0], [0, 1], [0, 0]]


def test_a_users_file_of_other_ids_is_named(tmp_path):
    folder = csv_set(tmp_path, CSV_RATINGS + "1,1,5,978300009\n2,1,4,978300009\n")
    (folder / "users.csv").write_text("userId,age\n0001,25\n0002,30\n")
    with pytest.warns(Note, match="none of the 2 users with ratings is in the users file"):
        read_dataset(folder)
    (folder / "users.csv").write_text("userId,age\n1,25\n1,30\n")
    with pytest.raises(UserError, match="user 1 is listed twice"):
        read_dataset(folder)


@pytest.mark.parametrize("unknown", ["", "?", "NA", "\\N", "65+"])
def test_one_odd_age_leaves_the_others_grouped(tmp_path, unknown):
    folder = csv_set(tmp_path, CSV_RATINGS + "".join(f"{user},1,5,978300009\n" for user in range(1, 5)))
    (folder / "users.csv").write_text(f"userId,age\n1,25\n2,30\n3,60\n4,{unknown}\n")
    found = demographics(read_dataset(folder).users, np.array([1, 2, 3, 4]))
    assert found.sum(axis=1).tolist() == [1, 1, 1, 0] and found.iloc[0].equals(found.iloc[1].rename(1))
