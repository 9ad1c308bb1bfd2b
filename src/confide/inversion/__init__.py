"""Attacks on releases of codes."""
