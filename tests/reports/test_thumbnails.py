import base64
import io

import numpy as np
import pytest
from PIL import Image

from confide.errors import ArgumentError
from confide.reports.thumbnails import SIDE, data_uri


def _opened(uri):
    head, _, body = uri.partition(",")
    assert head == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(body)))


def test_small_images_come_back_unchanged():
    rng = np.random.default_rng(0)
    for channels in (1, 3):
        image = rng.integers(0, 256, (channels, 20, 31), dtype=np.uint8)
        found = np.asarray(_opened(data_uri(image)))
        assert np.array_equal(found if channels == 1 else found.transpose(2, 0, 1), image.squeeze())


def test_large_images_become_small_and_keep_their_shape():
    image = np.full((1, 512, 256), 77, dtype=np.uint8)
    found = _opened(data_uri(image))
    assert found.size == (SIDE // 2, SIDE)
    assert set(np.asarray(found).ravel()) == {77}
    assert not found.info


@pytest.mark.parametrize(
    "image", [np.zeros((2, 4, 4), np.uint8), np.zeros((4, 4), np.uint8), np.zeros((1, 4, 4))]
)
def test_what_is_no_image_is_refused(image):
    with pytest.raises(ArgumentError, match="Expected an image of shape"):
        data_uri(image)
