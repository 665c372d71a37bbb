import importlib
from itertools import combinations

import pytest

from crane.drawn import embedded_domain, embedded_domains, reserved_generators
from crane.errors import UsageError

DOMAINS = [embedded_domain(name) for name in embedded_domains()]


def test_one_source_and_several_targets():
    assert len(embedded_domains("source")) == 1
    assert len(embedded_domains("target")) >= 2
    assert embedded_domains("source") + embedded_domains("target") == embedded_domains()


@pytest.mark.parametrize(("one", "other"), list(combinations(DOMAINS, 2)))
def test_domains_share_no_class_no_defect_and_no_generator(one, other):
    assert not set(one.classes) & set(other.classes)
    assert not set(one.defects) & set(other.defects)
    assert not set(one.generators) & set(other.generators)
    modules = [{g.rpartition(".")[0] for g in domain.generators} for domain in (one, other)]
    assert not modules[0] & modules[1]


@pytest.mark.parametrize("domain", DOMAINS, ids=embedded_domains())
def test_every_class_has_defects_and_every_defect_a_class(domain):
    assert set(domain.kinds) == set(domain.classes)
    assert {kind for kinds in domain.kinds.values() for kind in kinds} == set(domain.defects)
    for words in (domain.classes, domain.defects):
        assert all(word.isidentifier() and word.islower() for word in words)


@pytest.mark.parametrize("domain", DOMAINS, ids=embedded_domains())
def test_the_counts_of_each_class(domain):
    wanted = range(24, 25) if domain.role == "source" else range(16, 21)
    for class_name in domain.classes:
        mine = [p for p in domain.pictures() if p.class_name == class_name and p.split == "test"]
        num_good = sum(p.kind == "good" for p in mine)
        assert num_good in wanted
        assert len(mine) - num_good in wanted


def test_reserved_generators_are_the_functions_that_draw():
    reserved = reserved_generators()
    assert len(reserved) == sum(len(d.classes) + len(d.defects) for d in DOMAINS)
    for domain in DOMAINS:
        assert {reserved[g] for g in domain.generators} == {*domain.classes, *domain.defects}
    for generator in reserved:
        module, _, name = generator.rpartition(".")
        assert callable(getattr(importlib.import_module(module), name))


def test_an_unknown_domain_is_refused_with_those_there_are():
    with pytest.raises(
        UsageError,
        match=r"targets\.NAME\.domain.*unknown drawn domain 'toys'; choose one of parts, fabrics",
    ):
        embedded_domain("toys")
