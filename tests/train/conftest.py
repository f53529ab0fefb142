import pytest

from train import data


@pytest.fixture(scope="module")
def digits() -> data.DataSet:
    return data.digits(root="unused", image_size=28, test_fraction=0.2)


# --- files in the real formats ----------------------------------------------------------------------------------------
