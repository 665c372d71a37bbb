from pathlib import Path

import pytest
from hydra.utils import instantiate

from crane.config import compose, conf_dir
from crane.data import Index
from crane.datasets import Card, Counts
from crane.datasets.card import EVIDENCE
from crane.errors import UsageError
from crane.types import Sample

FACTS = {
    "title": "Things",
    "domain": "industrial",
    "has_masks": True,
    "has_normals": True,
    "licence": "none",
    "page": "https://example.org",
    "citation": "nobody",
    "size": "1 MB",
    "table_rows": [],
}


def card(*counts, class_names=("a", "b"), **changes):
    return Card(**{**FACTS, "class_names": class_names, "counts": counts, **changes})


def index(**numbers):
    """Keyword class_name=(normal, anomalous)."""
    samples = [
        Sample(Path(f"/r/{name}/{label}/{i}.png"), label, name)
        for name, pair in numbers.items()
        for label, num in enumerate(pair)
        for i in range(num)
    ]
    return Index("things", Path("/r"), tuple(samples), 0)


def texts(card, index, classes=None):
    return [mismatch.text for mismatch in card.mismatches(index, "test", classes)]


def test_every_difference_is_told_the_surest_first():
    known = card(
        Counts("test", "memory", "somebody", total=(9, 9)),
        Counts("test", "counted", "a list", classes={"a": (2, 1), "b": (1, 1)}),
        Counts("test", "stated", "a page", num_images=6),
        Counts("train", "counted", "a list", classes={"a": (7, 0)}),
    )
    assert texts(known, index(a=(2, 2), c=(1, 0))) == [
        "c is no class of it (counted: a list)",
        "a: 2 normal and 2 anomalous images, not 2 and 1 (counted: a list)",
        "b: 0 normal and 0 anomalous images, not 1 and 1 (counted: a list)",
        "c is no class of it (stated: a page)",
        "in all: 5 images, not 6 (stated: a page)",
        "c is no class of it (memory: somebody)",
        "in all: 3 normal and 2 anomalous images, not 9 and 9 (memory: somebody)",
    ]
    right = card(Counts("test", "counted", "a list", classes={"a": (2, 1), "b": (1, 1)}))
    assert texts(right, index(a=(2, 1), b=(1, 1))) == []


def test_a_part_of_the_classes_is_compared_by_class_only():
    known = card(
        Counts("test", "counted", "a list", classes={"a": (2, 1), "b": (1, 1)}, total=(3, 2))
    )
    assert texts(known, index(a=(2, 1)), classes=["a"]) == []
    assert texts(known, index(a=(2, 1)), classes="a") == []
    assert len(texts(known, index(a=(2, 2)), classes=["a"])) == 1


def test_the_only_class_may_bear_another_name_and_others_by_alias():
    one = card(Counts("test", "counted", "a list", total=(1, 1)), class_names=["a"])
    assert texts(one, index(renamed=(1, 1))) == []
    assert one.expected("test", "renamed") == (1, 1, "counted")
    counts = Counts("test", "counted", "a list", classes={"a": (2, 1), "b": (1, 1)})
    other = card(counts, aliases={"first": "a"})
    assert texts(other, index(first=(2, 1), b=(1, 1))) == []
    assert other.expected("test", "first") == (2, 1, "counted")
    assert other.expected("test", "c") is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"evidence": "rumour"}, "evidence out of counted, stated, thread, memory"),
        ({"total": None}, "a count a class"),
    ],
)
def test_statements_are_checked(change, message):
    with pytest.raises(UsageError, match=message):
        Counts(**{"split": "test", "evidence": "stated", "source": "x", "total": (1, 1), **change})
    with pytest.raises(UsageError, match="a domain out of industrial, medical"):
        card(domain="culinary")


# ---- the catalogue -----------------------------------------------------------------------------

PUBLISHED = sorted(
    path.stem for path in (conf_dir() / "dataset").glob("*.yaml") if "card:" in path.read_text()
)
TOTALS = {  # normal and anomalous test images, of train images all (shared facts of the field)
    "mvtec": (467, 1258, 3629),
    "visa": (962, 1200, 8659),
    "btad": (451, 290, 1799),
    "mpdd": (176, 282, 888),
    "dtd": (357, 947, 1200),
    "ksdd": (347, 52, None),
    "ksdd_thirds": (286, 54, 857),
    "ksdd_anomalyclip": (181, 74, None),
    "dagm": (6996, 1054, 8050),
    "dagm_balanced": None,
    "headct": (100, 100, None),
    "brainmri": (98, 155, None),
    "br35h": (1500, 1500, None),
    "isic": (0, 379, None),
    "cvc_colondb": (0, 380, None),
    "cvc_clinicdb": (0, 612, None),
    "kvasir": (0, 1000, None),
    "cvc_300": (0, 60, None),
    "endo": (0, 200, None),
    "tn3k": (0, 614, 2879),
}
FROM_MEMORY = {"ksdd", "dagm", "brainmri"}


@pytest.fixture(scope="module")
def cards():
    targets = compose("data", ["action=list", f"dataset@targets=[{','.join(PUBLISHED)}]"]).targets
    return {name: instantiate(node.card) for name, node in targets.items()}


def test_the_catalogue_is_whole():
    assert set(PUBLISHED) == set(TOTALS)


@pytest.mark.parametrize("name", TOTALS)
def test_counts_of_the_catalogue(cards, name):
    known = cards[name]
    assert known.has_normals == (TOTALS[name] is None or TOTALS[name][0] > 0)
    for counts in known.counts:
        assert counts.evidence in EVIDENCE
        assert set(counts.classes) <= set(known.class_names)
    if TOTALS[name] is None:
        assert known.counts == []
        return
    normal, anomalous, num_train = TOTALS[name]
    tested = [counts for counts in known.of("test") if counts.totals]
    assert {counts.totals for counts in tested} == {(normal, anomalous)}
    assert (tested[0].evidence == "memory") == (name in FROM_MEMORY)
    trained = [sum(c.totals) if c.totals else c.num_images for c in known.of("train")]
    assert trained == ([] if num_train is None else [num_train])


def test_table_rows_are_those_of_the_published_table(cards):
    rows = [row for known in cards.values() for row in known.table_rows]
    table = Path(__file__).parents[3] / "experiments" / "table1_zero_shot" / "published.csv"
    published = {line.split(",")[2] for line in table.read_text().splitlines()[1:]}
    assert sorted(rows) == sorted(name for name in published if not name.startswith("average"))
    industrial = {name for name, known in cards.items() if known.domain == "industrial"}
    assert len(industrial) == 10
