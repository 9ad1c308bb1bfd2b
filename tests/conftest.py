"""The folder of real data, where there is one; keys that are the same in every run."""

import os
from pathlib import Path

import numpy as np
import pytest


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """What a test draws from the system, fixtures too, depends on its name alone.

    The keys decide which records are held out, and with few of them a draw may be unusable.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.urandom", np.random.default_rng(list(item.nodeid.encode())).bytes)
        return (yield)


@pytest.fixture(scope="session")
def real_data():
    given = os.environ.get("CONFIDE_DATA")
    folder = Path(given) if given else Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("set CONFIDE_DATA to the folder of real data")
    return folder
