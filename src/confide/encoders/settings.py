"""The `encode:` block of a configuration: which encoder, and what is published beside the codes.

Plain values, checked when made, without importing torch.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from confide.datasets.base import ByFraction, Settings
from confide.errors import ArgumentError

Dtype = Literal["float32", "float16", "bfloat16"]
Shape = tuple[int, ...]
"""Of one record: (channels, height, width) of an image, (leads, samples) of a signal."""


class _Encode(Settings):
    """What every encoder is asked for.

    Parameters
    ----------
    patch : side of a square patch of an image in pixels, or length of a patch of a signal in
        samples; sides and lengths must be multiples of it
    width : length of a row of a code
    shuffle : whether the rows of each code stand in a random order of their own
    dtype : type of the stored codes
    columns : columns of the table that are published beside the codes and the label; one that
        looks like an identifier is refused unless it is named twice
    dev : which of the patients that are not held out for the test choose the best epoch
    pseudonyms : whether a pseudonym of the patient, made for this release alone, is published; it
        tells which codes are of one patient
    """

    patch: int = Field(default=16, ge=1, le=4096)
    width: int = Field(default=2048, ge=1, le=65536)
    shuffle: bool = True
    dtype: Dtype = "float32"
    columns: tuple[str, ...] = ()
    dev: ByFraction = ByFraction()
    pseudonyms: bool = False

    def n_patches(self, shape: Shape) -> int:
        """Rows of a code of records of this shape.

        Raises
        ------
        ArgumentError : not the shape of an image or a signal, or no multiple of the patch
        """
        sides = shape[1:]
        if len(sides) not in (1, 2):
            raise ArgumentError(
                "Expected records as (channels, height, width) or (leads, samples), got "
                f"{shape}; tables cannot be encoded."
            )
        rows = 1
        for side in sides:
            if side % self.patch:
                raise ArgumentError(
                    f"Expected sides {sides} to be multiples of patch={self.patch}; resize the "
                    "records or choose another patch."
                )
            rows *= side // self.patch
        return rows


class NeuraCryptSettings(_Encode):
    """The encoder of Yala et al., arXiv 2106.02484 (2021).

    Parameters
    ----------
    private_depth : hidden layers; the paper counts 3 more
    norm : "frozen": the statistics of the hidden layers are those of a calibration set, so that a
        code is a function of the record; "batch": those of the batch, as in the authors' code, so
        that a code also depends on the records it was encoded with
    position : whether a random embedding of its position is added to each row
    batch_size : records a batch with norm "batch"; does not matter with "frozen"
    """

    name: Literal["neuracrypt"] = "neuracrypt"
    private_depth: int = Field(default=4, ge=0, le=256)
    norm: Literal["frozen", "batch"] = "frozen"
    position: bool = True
    batch_size: int = Field(default=128, ge=2, le=4096)

    def architecture(self, shape: Shape) -> dict[str, Any]:
        """What a key is bound to, for records of this shape; JSON values."""
        fields = {"name", "patch", "width", "private_depth", "norm", "position"}
        if self.norm == "batch":
            fields |= {"batch_size"}
        return {**self.model_dump(include=fields), "shape": list(shape)}


class LinearSettings(_Encode):
    """One strided convolution alone: the weak encoder of Yala et al., for comparison and controls.

    The order of its rows is kept by default.
    """

    name: Literal["linear"] = "linear"
    shuffle: bool = False

    def architecture(self, shape: Shape) -> dict[str, Any]:
        """What a key is bound to, for records of this shape; JSON values."""
        return {**self.model_dump(include={"name", "patch", "width"}), "shape": list(shape)}


EncodeSettings = Annotated[NeuraCryptSettings | LinearSettings, Field(discriminator="name")]
