"""Records in the WFDB format, written byte by byte."""

import numpy as np


def write_record(path, steps, *, names, rate=100, form=16, gain="1000.0(0)/mV", checksum=None):
    """Write PATH.hea and PATH.dat of (n_leads, n_samples) whole numbers, as PTB-XL has them."""
    n_leads, n_samples = steps.shape
    lines = [f"{path.name} {n_leads} {rate} {n_samples}"]
    for lead, values in zip(names, steps, strict=True):
        total = int(values.sum()) % 65536 if checksum is None else checksum
        lines.append(f"{path.name}.dat {form} {gain} 16 0 {values[0]} {total} 0 {lead}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_name(f"{path.name}.hea").write_text("\n".join(lines) + "\n")
    flat = steps.T.reshape(-1)
    content = flat.astype("<i2").tobytes() if form == 16 else bytes(in_212(flat.tolist()))
    path.with_name(f"{path.name}.dat").write_bytes(content)


def in_212(flat):
    """Bytes of 12-bit numbers, two in three bytes (signal(5), format 212)."""
    for first, second in zip(flat[::2], [*flat[1::2], 0][: len(flat[::2])], strict=True):
        yield first & 0xFF
        yield (first >> 8 & 0x0F) | (second >> 8 & 0x0F) << 4
        yield second & 0xFF


LEADS = ("I", "II", "III", "AVR", "AVL", "AVF", "V1", "V2", "V3", "V4", "V5", "V6")


def ecgs(rng, n_records, n_samples=1000, n_leads=12, low=-900, high=900):
    """(n_records, n_leads, n_samples) whole numbers: smooth waves."""
    walk = rng.integers(-40, 41, size=(n_records, n_leads, n_samples)).cumsum(axis=-1)
    return np.clip(walk, low, high)
