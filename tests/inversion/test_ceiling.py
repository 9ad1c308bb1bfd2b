"""Raw records as codes: their patches in order."""

import numpy as np
import pytest

from confide.encoders.settings import NeuraCryptSettings
from confide.errors import ArgumentError
from confide.inversion.base import Architecture
from confide.inversion.ceiling import raw_architecture, raw_codes


@pytest.mark.parametrize("shape", [(1, 8, 12), (3, 8, 12), (2, 12)])
def test_rows_are_patches(shape):
    records = np.random.default_rng(0).integers(0, 256, (5, *shape)).astype(np.uint8)
    architecture = Architecture(settings=NeuraCryptSettings(patch=4, width=64), shape=shape)
    codes, made = raw_codes(records, architecture), raw_architecture(architecture)
    assert codes.n_records == 5
    assert codes.shape == (architecture.n_patches, made.settings.width)
    assert made.n_patches == architecture.n_patches
    assert not made.settings.shuffle
    assert codes.values.sum() == records.sum()
    first = records[2][..., :4, :4] if len(shape) == 3 else records[2][:, :4]
    np.testing.assert_array_equal(codes.values[2, 0], first.ravel())


def test_records_of_another_shape():
    architecture = Architecture(settings=NeuraCryptSettings(patch=4, width=64), shape=(1, 8, 8))
    with pytest.raises(ArgumentError, match="records"):
        raw_codes(np.zeros((2, 1, 8, 12), dtype=np.uint8), architecture)
