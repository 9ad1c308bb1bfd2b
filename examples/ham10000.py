"""Put the HAM10000 images of a packed file into one array, for ham10000.yaml.

python examples/ham10000.py FOLDER/images64_jpeg.npz ham10000.npy

The file holds `data` (JPEG files end to end) and `offsets`, in the order of the table.
"""

import io
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image


def main(packed: Path, out: Path) -> None:
    """Decode every image and store (n, 64, 64, 3) uint8."""
    with np.load(packed, allow_pickle=False) as stored:
        data, ends = stored["data"].tobytes(), stored["offsets"]
    files = (io.BytesIO(data[a:b]) for a, b in pairwise(ends))
    np.save(out, np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files]))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
