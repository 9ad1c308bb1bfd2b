import subprocess
import sys

import pytest

import confide


def loaded_by(code):
    """Which of the heavy packages a fresh interpreter has imported after the code."""
    heavy = ["torch", "pandas", "numpy", "sklearn", "pyarrow", "zarr", "plotly", "scipy"]
    ask = f"{code}\nimport sys\nprint(*[m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split() if done.stdout.strip() else [])


@pytest.mark.parametrize("name", confide.__all__)
def test_every_public_name_is_there(name):
    assert getattr(confide, name) is not None


def test_the_public_names_are_listed():
    assert dir(confide) == sorted(confide.__all__)
    assert set(confide._WHERE) == set(confide.__all__) - {"__version__"}


def test_a_name_that_is_not_there():
    with pytest.raises(AttributeError, match="'audti'"):
        confide.audti  # noqa: B018


def test_the_version_is_that_of_the_package():
    from importlib.metadata import version

    assert confide.__version__ == version("confide")


def test_import_confide_is_light():
    assert loaded_by("import confide") == set()


def test_what_an_audit_means_needs_no_torch():
    code = """
import confide
for name in set(confide.__all__) - {"__version__"}:
    getattr(confide, name)
import confide.config, confide.datasets, confide.reports.html
"""
    assert "torch" not in loaded_by(code)
