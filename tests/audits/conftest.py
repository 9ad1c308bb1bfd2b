"""Lets tests import the plain references of tests/oracles.py."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))
