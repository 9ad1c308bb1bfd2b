"""Lets tests import what they share, tests/encoders/releases.py."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))
