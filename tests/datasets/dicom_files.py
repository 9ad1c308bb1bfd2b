"""Writes small DICOM files for tests."""

import warnings

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian


def dataset(pixels, *, photometric="MONOCHROME2", bits=None, syntax=ExplicitVRLittleEndian, **tags):
    """A data set of one image; a tag of None is left out."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID("1.2.840.10008.5.1.4.1.1.7")
    meta.MediaStorageSOPInstanceUID = UID("1.2.3.4")
    meta.TransferSyntaxUID = syntax
    made = Dataset()
    made.file_meta = meta
    made.SOPClassUID = meta.MediaStorageSOPClassUID
    made.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    made.PatientName = "Made^Up"
    made.Rows, made.Columns = pixels.shape[:2]
    made.SamplesPerPixel = 1 if pixels.ndim == 2 else pixels.shape[2]
    if pixels.ndim == 3:
        made.PlanarConfiguration = 0
    made.PhotometricInterpretation = photometric
    made.BitsAllocated = 8 * pixels.dtype.itemsize
    made.BitsStored = bits or made.BitsAllocated
    made.HighBit = made.BitsStored - 1
    made.PixelRepresentation = int(np.issubdtype(pixels.dtype, np.signedinteger))
    order = "<" if syntax.is_little_endian else ">"
    content = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    made.PixelData = content + b"\0" * (len(content) % 2)
    made["PixelData"].VR = "OB" if made.BitsAllocated == 8 else "OW"
    if not syntax.is_encapsulated:
        made.set_original_encoding(syntax.is_implicit_VR, syntax.is_little_endian)
    for name, value in tags.items():
        setattr(made, name, value)
        if value is None:
            delattr(made, name)
    return made


def save(path, made):
    """Write a data set as it is, also when it breaks rules."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made.preamble = bytes(128)
        made.save_as(path, enforce_file_format=False)
    return path


def write(path, pixels, **options):
    """Write an image; see :func:`dataset`."""
    return save(path, dataset(pixels, **options))
