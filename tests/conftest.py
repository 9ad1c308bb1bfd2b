"""The folder of real data, where there is one."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data():
    given = os.environ.get("CONFIDE_DATA")
    folder = Path(given) if given else Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("set CONFIDE_DATA to the folder of real data")
    return folder
