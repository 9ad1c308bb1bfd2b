"""Small hidden worlds: records, their codes, and what an attacker may know of them."""

from dataclasses import dataclass, field

import numpy as np

from confide.datasets.phantom import Phantom
from confide.encoders.settings import LinearSettings, NeuraCryptSettings
from confide.inversion import base
from confide.inversion.targets import encoded, negative_control, positive_control


@dataclass(frozen=True, kw_only=True, eq=False)
class World:
    """Hidden records in the order of their codes, and public ones of other patients."""

    architecture: base.Architecture
    hidden: np.ndarray
    patient: np.ndarray
    positive: np.ndarray  # (n,) 0 or 1, an attribute that the images show
    public: np.ndarray
    public_positive: np.ndarray
    codes: np.ndarray
    order: np.ndarray = field(repr=False)  # plaintext order[i] of the attacker is hidden record i

    @property
    def plaintexts(self):
        """The hidden records as the attacker has them, in an unrelated order."""
        out = np.empty_like(self.hidden)
        out[self.order] = self.hidden
        return out

    def known(self, kind, n_pairs=None):
        """What an attacker of a kind knows."""
        facts = {"architecture": self.architecture, "codes": base.ArrayCodes(self.codes)}
        if issubclass(kind, base.TwoReleases):
            facts |= {"codes": self._part(0), "other": self._part(1)}
        if issubclass(kind, base.SameImages):
            facts["plaintexts"] = self.plaintexts
        elif issubclass(kind, base.Unpaired):
            facts["plaintexts"] = self.public
        if kind is base.LabelledPlaintexts:
            facts["attribute"] = self.public_positive
        if kind is base.KnownPairs:
            which = np.random.default_rng(5).permutation(len(self.hidden))[:n_pairs]
            facts["pairs"] = np.column_stack([which, self.order[which]])
        if kind is base.KnownAttributes:
            half = self.patient % 2 == 0
            facts["attribute"] = np.where(half, self.positive, -1)
        return kind(**facts)

    def _part(self, which):
        """Half of the codes, as a release of its own."""
        return base.ArrayCodes(self.codes[which::2])

    def truth(self, kind):
        """What is true of that, for scoring."""
        from confide.inversion.scores import Truth

        here = slice(0, None, 2) if issubclass(kind, base.TwoReleases) else slice(None)
        known = kind is base.KnownAttributes
        return Truth(
            records=self.hidden[here],
            patient=self.patient[here],
            match=self.order[here] if issubclass(kind, base.SameImages) else None,
            attribute=np.where(self.patient % 2 == 0, -1, self.positive)
            if known
            else self.positive[here],
            codes=self._part(0)
            if issubclass(kind, base.TwoReleases)
            else base.ArrayCodes(self.codes),
            other_patient=self.patient[1::2] if issubclass(kind, base.TwoReleases) else None,
        )


def phantom(n_patients, seed, *, size=(32, 32), max_views=2):
    """(records, patient, label) of a phantom."""
    data = Phantom(
        n_patients=n_patients, max_views=max_views, size=size, opacity=1.0, hard=0, seed=seed
    ).load()
    return data.inputs, data.cohort.patient_index, data.cohort.label


def world(kind="release", *, n_patients=40, seed=0, patch=8, width=64, private_depth=1, **more):
    """A world of phantoms whose codes are a release, linear ("linear") or of noise ("noise")."""
    hidden, patient, positive = phantom(n_patients, 100 + seed, **more)
    public, _, public_positive = phantom(n_patients, 200 + seed, **more)
    settings = NeuraCryptSettings(patch=patch, width=width, private_depth=private_depth)
    architecture = base.Architecture(settings=settings, shape=hidden.shape[1:])
    if kind == "linear":
        target = positive_control(architecture, hidden, seed)
        architecture, codes = target.architecture, target.codes.values
    elif kind == "noise":
        codes = negative_control(architecture, hidden, seed).codes.values
    else:
        codes = encoded(architecture, hidden, seed)
    assert isinstance(architecture.settings, LinearSettings) == (kind == "linear")
    return World(
        architecture=architecture,
        hidden=hidden,
        patient=patient,
        positive=positive,
        public=public,
        public_positive=public_positive,
        codes=codes,
        order=np.random.default_rng(seed + 1).permutation(len(hidden)),
    )
