"""Encoders: secret random networks that turn records into codes, their keys and their releases.

What needs torch is imported when it is first used.
"""
