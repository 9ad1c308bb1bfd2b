"""Loaded before torch, so that its threads wait politely on shared cores."""

import confide.training  # noqa: F401
