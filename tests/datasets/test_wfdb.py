"""The reader of WFDB records against bytes written here, and against the package where it is."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from confide.datasets import wfdb as reader
from confide.datasets.wfdb import read_header, read_signals
from confide.errors import MissingFileError, TableError

sys.path.insert(0, str(Path(__file__).parent))  # tests are imported from files
from wfdb_files import LEADS, ecgs, write_record

RNG = np.random.default_rng(0)

PTB_XL = """\
00001_lr 12 100 1000
00001_lr.dat 16 1000.0(0)/mV 16 0 -119 1508 0 I
00001_lr.dat 16 1000.0(0)/mV 16 0 -55 723 0 II
00001_lr.dat 16 1000.0(0)/mV 16 0 64 64758 0 III
00001_lr.dat 16 1000.0(0)/mV 16 0 86 64423 0 AVR
00001_lr.dat 16 1000.0(0)/mV 16 0 -91 1211 0 AVL
00001_lr.dat 16 1000.0(0)/mV 16 0 4 7 0 AVF
00001_lr.dat 16 1000.0(0)/mV 16 0 -69 63827 0 V1
00001_lr.dat 16 1000.0(0)/mV 16 0 -31 6999 0 V2
00001_lr.dat 16 1000.0(0)/mV 16 0 0 63759 0 V3
00001_lr.dat 16 1000.0(0)/mV 16 0 -26 61447 0 V4
00001_lr.dat 16 1000.0(0)/mV 16 0 -39 64979 0 V5
00001_lr.dat 16 1000.0(0)/mV 16 0 -79 832 0 V6
"""

MIT_BIH = """\
# a comment
100 2 360 3 12:00:00 1/1/2020
100.dat 212 200 11 1024 995 0 0 MLII
100.dat 212 200 11 1024 1011 0 0 V5
# 69 M 1085 1629 x1
"""


def header(folder, text):
    path = folder / "r.hea"
    path.write_text(text)
    return path


def test_the_header_of_a_published_record(tmp_path):
    found = read_header(header(tmp_path, PTB_XL))
    assert found.names == LEADS
    assert (found.rate, found.n_samples, found.file, found.format) == (
        100,
        1000,
        "00001_lr.dat",
        16,
    )
    assert [lead.gain for lead in found.leads] == [1000.0] * 12
    assert [lead.baseline for lead in found.leads] == [0] * 12
    assert found.leads[2].checksum == 64758


def test_the_first_samples_of_record_100(tmp_path):
    """995 and 1011 are -0.145 and -0.065 mV (header(5), signal(5))."""
    path = header(tmp_path, MIT_BIH)
    (tmp_path / "100.dat").write_bytes(bytes.fromhex("e333f3" + "e333f3" + "ff071e"))
    found = read_signals(path)
    assert found.dtype == np.float32
    expected = np.array([[995, 995, 2047], [1011, 1011, 30]])
    assert np.array_equal(found, ((expected - 1024) / 200).astype(np.float32))
    assert read_header(path).names == ("MLII", "V5")


@pytest.mark.parametrize("n", [999, 1000])
@pytest.mark.parametrize("form", [16, 212])
def test_what_was_written_is_read(tmp_path, form, n):
    steps = ecgs(RNG, 1, n, 3)[0]
    steps[:, :4] = [[-2047, 2047, -1, 0]] * 3  # the ends of 12 bits
    write_record(tmp_path / "r", steps, names=LEADS[:3], form=form)
    found = read_signals(tmp_path / "r.hea")
    assert np.array_equal(found, (steps / 1000).astype(np.float32))


@pytest.mark.parametrize(
    ("gain", "per_millivolt", "zero"),
    [
        ("1000.0(0)/mV", 1000, 0),
        ("200", 200, 0),
        ("1(-40)/uV", 1000, -40),
        ("0.5/µV", 500, 0),
        ("2e5(7)/V", 200, 7),
    ],
)
def test_units_become_millivolts(tmp_path, gain, per_millivolt, zero):
    steps = np.array([[1, -2, 300, 0]])
    write_record(tmp_path / "r", steps, names=["I"], gain=gain)
    expected = (steps - zero) / per_millivolt
    assert np.allclose(read_signals(tmp_path / "r.hea"), expected, rtol=1e-6, atol=0)


def test_a_baseline_that_is_not_given_is_the_zero_of_the_converter(tmp_path):
    path = header(tmp_path, "r 1 100 2\nr.dat 16 100 16 50 0\n")
    (tmp_path / "r.dat").write_bytes(np.array([50, 150], "<i2").tobytes())
    assert read_signals(path).tolist() == [[0.0, 1.0]]
    assert read_header(path).names == ("unnamed",)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("00001_lr 12 100 1000", "00001_lr/3 12 100 1000", "line 1 is that of a record of several"),
        ("12 100 1000", "12 100", r"expected name, signals, samples per second and samples"),
        ("12 100 1000", "13 100 1000", "announces 13 signals and 12 lines follow"),
        ("12 100 1000", "12 zero 1000", "'zero' samples per second"),
        ("12 100 1000", "12 0 1000", "'0' samples per second"),
        ("12 100 1000", "12 100 0", "12 signals of 0 samples; expected 1 to 10,000,000"),
        ("12 100 1000", "12 100 999999999", "speaks of 12 signals of 999,999,999 samples"),
        ("12 100 1000", "12 100 9999999999", "'9999999999' for a number of samples"),
        ("12 100 1000", "-1 100 -5", "speaks of -1 signals of -5 samples"),
        ("00001_lr.dat 16", "../00001_lr.dat 16", r"line 2 names the file '\.\./00001_lr\.dat'"),
        ("00001_lr.dat 16", "/etc/passwd 16", "names the file '/etc/passwd'"),
        ("00001_lr.dat 16", "~ 16", "names the file '~'"),
        ("dat 16 1000.0", "dat 80 1000.0", "has format '80'; formats 16 and 212 are read"),
        ("dat 16 1000.0", "dat 16x2 1000.0", "has format '16x2'"),
        ("dat 16 1000.0", "dat 16:3 1000.0", "has format '16:3'"),
        ("dat 16 1000.0", "dat 16+24 1000.0", r"has format '16\+24'"),
        ("dat 16 1000.0(0)/mV 16 0 -119 1508 0 I", "dat 16", "has gain ''; without one"),
        ("1000.0(0)/mV", "0(0)/mV", r"has gain '0\(0\)/mV'"),
        ("1000.0(0)/mV", "inf/mV", "has gain 'inf/mV'"),
        ("1000.0(0)/mV", "1e-99/mV", "has gain '1e-99/mV'"),
        ("1000.0(0)/mV", "1000.0(0)/mmHg", "has units 'mmHg'; expected mV, uV or V"),
        ("0 -119 1508 0 I", "0 -119 much 0 I", "'much' for a checksum"),
        (
            "00001_lr.dat 16 1000.0(0)/mV 16 0 -55",
            "2.dat 16 1000.0(0)/mV 16 0 -55",
            "several files",
        ),
        ("dat 16 1000.0(0)/mV 16 0 -55", "dat 212 1000.0(0)/mV 16 0 -55", "files or formats"),
    ],
)
def test_other_headers_are_refused(tmp_path, old, new, message):
    assert old in PTB_XL
    path = header(tmp_path, PTB_XL.replace(old, new, 1))
    with pytest.raises(TableError, match=rf"r\.hea.*{message}"):
        read_header(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"# only a comment\n", "is empty"),
        (b"\xff\xfe\x00junk", "expected name, signals"),
        (b"r 1 100 2\n" * 10_000, "more than 65,536 bytes; it is no WFDB header"),
    ],
)
def test_what_is_no_header_is_refused(tmp_path, content, message):
    (tmp_path / "r.hea").write_bytes(content)
    with pytest.raises(TableError, match=message):
        read_header(tmp_path / "r.hea")


def test_damage_is_found(tmp_path):
    steps = ecgs(RNG, 1, 50, 2)[0]
    path = tmp_path / "r.hea"

    def damaged(content):
        (tmp_path / "r.dat").write_bytes(content)
        with pytest.raises(TableError) as error:
            read_signals(path)
        return str(error.value)

    write_record(tmp_path / "r", steps, names=["I", "II"])
    good = (tmp_path / "r.dat").read_bytes()
    assert "is damaged: it has 199 bytes, and r.hea speaks of 200" in damaged(good[:-1])
    assert "is damaged: it has 202 bytes" in damaged(good + b"\0\0")
    assert "is damaged: it has 0 bytes" in damaged(b"")
    flipped = bytearray(good)
    flipped[6] ^= 1  # sample 1 of lead II
    assert "lead 'II' does not sum up to the checksum" in damaged(bytes(flipped))
    (tmp_path / "r.dat").unlink()
    with pytest.raises(MissingFileError, match=r"no signal file .*r\.dat"):
        read_signals(path)
    with pytest.raises(MissingFileError, match="no WFDB header"):
        read_signals(tmp_path / "gone.hea")


def test_a_header_announces_more_than_there_is(tmp_path):
    """Nothing is allocated for what is only announced."""
    path = header(tmp_path, f"r 1 100 {reader.MAX_NUMBERS}\nr.dat 16 1000\n")
    (tmp_path / "r.dat").write_bytes(b"\0\0")
    with pytest.raises(TableError, match=r"it has 2 bytes, and r\.hea speaks of 20,000,000"):
        read_signals(path)


@pytest.mark.parametrize(("form", "step"), [(16, -(2**15)), (212, -(2**11))])
def test_samples_that_were_not_measured_are_named(tmp_path, form, step):
    steps = np.zeros((2, 9), dtype=int)
    steps[1, 4:6] = step
    write_record(tmp_path / "r", steps, names=["I", "II"], form=form)
    with pytest.raises(TableError, match=r"sample 4 of lead 'II' is marked as not .*\(2 in all\)"):
        read_signals(tmp_path / "r.hea")


def test_a_checksum_of_zero_stands_for_none(tmp_path):
    steps = ecgs(RNG, 1, 50, 2)[0] + 1
    write_record(tmp_path / "r", steps, names=["I", "II"], checksum=0)
    assert read_signals(tmp_path / "r.hea").shape == (2, 50)


def test_a_link_does_not_lead_out_of_the_folder(tmp_path):
    write_record(tmp_path / "out" / "r", ecgs(RNG, 1, 50, 2)[0], names=["I", "II"])
    (tmp_path / "in").mkdir()
    (tmp_path / "out" / "r.hea").rename(tmp_path / "in" / "r.hea")
    (tmp_path / "in" / "r.dat").symlink_to(tmp_path / "out" / "r.dat")
    with pytest.raises(TableError, match="is a link that leads out of its folder"):
        read_signals(tmp_path / "in" / "r.hea")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", ["16", "212"])
def test_as_the_package_reads_and_writes(tmp_path, form):
    # Version 4.3 cannot be imported with the text columns of pandas 3.
    with pd.option_context("future.infer_string", False):
        wfdb = pytest.importorskip("wfdb")
    steps = ecgs(RNG, 1, 401, 3)[0]
    wfdb.wrsamp(
        "theirs",
        fs=500,
        units=["mV", "uV", "mV"],
        sig_name=["I", "II", "V1"],
        d_signal=steps.T,
        fmt=[form] * 3,
        adc_gain=[1000.0, 1.5, 200.0],
        baseline=[0, 12, -3],
        write_dir=str(tmp_path),
    )
    found = read_signals(tmp_path / "theirs.hea")
    expected = wfdb.rdsamp(str(tmp_path / "theirs"))[0].T * [[1], [1e-3], [1]]
    assert np.allclose(found, expected, rtol=1e-6, atol=1e-9)
    write_record(tmp_path / "ours", steps, names=["I", "II", "V1"], form=int(form))
    expected = wfdb.rdsamp(str(tmp_path / "ours"))[0].T
    assert np.array_equal(read_signals(tmp_path / "ours.hea"), expected.astype(np.float32))
