"""Lets tests import what they share, tests/inversion/worlds.py, and loads torch politely."""

import sys
from pathlib import Path

import confide.training  # noqa: F401

sys.path.append(str(Path(__file__).parents[1]))
