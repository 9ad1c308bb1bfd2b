"""Images read at once, as the tests of readers want them."""

import numpy as np

from confide.datasets.pixels import open_files, open_images


def read_files(paths, size, channels="auto"):
    """(n, channels, height, width) uint8 of all files, and notes."""
    found = open_files(paths, size, channels)
    return found.read(np.arange(len(paths))), found.notes


def read_array(path, key, n_records, size, channels="auto", **limits):
    """(n, channels, height, width) uint8 of all images, and notes."""
    found = open_images(path, key, n_records, size, channels, **limits)
    return found.read(np.arange(n_records)), found.notes
