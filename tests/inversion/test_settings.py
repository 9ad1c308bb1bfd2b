"""The `attack:` block of a configuration."""

import pytest

from confide.config import parse
from confide.errors import ConfigError
from confide.inversion.settings import DEFAULT, KNOWLEDGE, NEEDS

DATA = {"name": "phantom"}


def test_every_attack_that_can_be_named_is_there():
    from confide.inversion import base
    from confide.inversion.suite import KNOWN

    assert set(KNOWN) == set(NEEDS)
    kinds = {
        "codes": (base.KnownAttributes, base.TwoReleases),
        "unpaired": (base.LabelledPlaintexts,),
        "same-images": (base.SameImages,),
        "pairs": (base.KnownPairs,),
    }
    for name, attack in KNOWN.items():
        assert attack.name == name
        known = attack.knowledge
        if known in (base.CodesOnly, base.Unpaired):
            assert NEEDS[name] == ("codes" if known is base.CodesOnly else "unpaired")
            continue
        assert issubclass(known, kinds[NEEDS[name]])


def test_defaults_are_possible():
    assert tuple(DEFAULT) == KNOWLEDGE
    for knowledge, names in DEFAULT.items():
        rank = KNOWLEDGE.index(knowledge)
        assert all(KNOWLEDGE.index(NEEDS[name]) <= rank for name in names)
        more = {"plaintexts": DATA} if knowledge == "unpaired" else {}
        found = parse({"data": DATA, "attack": {"knowledge": knowledge, **more}}).attack
        assert found.names == names


def test_plaintexts_are_a_block_of_data():
    found = parse({"data": DATA, "attack": {"plaintexts": {"name": "phantom", "seed": 3}}})
    assert found.attack.plaintexts.seed == 3
    assert found.attack.gate is None
    assert parse({"data": DATA, "attack": {"gate": {"reid": 0.05}}}).attack.gate.reid == 0.05


@pytest.mark.parametrize(
    ("block", "words"),
    [
        ({"attacks": ["alignmnt"]}, "unknown attack 'alignmnt'. Did you mean 'alignment'"),
        ({"attacks": ["mmd", "mmd"]}, "'mmd' is named twice"),
        ({"knowledge": "codes", "attacks": ["alignment"]}, "needs knowledge: same-images"),
        ({"knowledge": "unpaired"}, "needs `plaintexts`, a data block of records of other"),
        ({"knowledge": "all"}, "attack.knowledge = 'all'"),
        ({"budget": "big"}, "attack.budget = 'big'"),
        ({"gate": {"reid": 2}}, "attack.gate.reid = 2"),
        ({"plaintexts": {"name": "phantom", "sede": 1}}, "unknown key attack.plaintexts.sede"),
        ({"minutes": 0}, "attack.minutes = 0"),
        ({"known_share": 1}, "attack.known_share = 1"),
    ],
)
def test_what_cannot_be_asked_for(block, words):
    with pytest.raises(ConfigError) as found:
        parse({"data": DATA, "attack": block})
    assert words in str(found.value)
