from pathlib import Path

import pytest

from crane.config import compose, conf_dir
from crane.data import Index
from crane.datasets import Card, ImageCounts
from crane.errors import UsageError
from crane.gate import build
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
        ImageCounts("test", "memory", "somebody", total=(9, 9)),
        ImageCounts("test", "counted", "a list", classes={"a": (2, 1), "b": (1, 1)}),
        ImageCounts("test", "stated", "a page", num_images=6),
        ImageCounts("train", "counted", "a list", classes={"a": (7, 0)}),
    )
    assert texts(known, index(a=(2, 2), c=(1, 0))) == [
        "c is not one of its classes (counted: a list)",
        "a: 2 normal and 2 anomalous images, not 2 and 1 (counted: a list)",
        "b: 0 normal and 0 anomalous images, not 1 and 1 (counted: a list)",
        "c is not one of its classes (stated: a page)",
        "in all: 5 images, not 6 (stated: a page)",
        "c is not one of its classes (memory: somebody)",
        "in all: 3 normal and 2 anomalous images, not 9 and 9 (memory: somebody)",
    ]
    right = card(ImageCounts("test", "counted", "a list", classes={"a": (2, 1), "b": (1, 1)}))
    assert texts(right, index(a=(2, 1), b=(1, 1))) == []


def test_a_part_of_the_classes_is_compared_by_class_only():
    known = card(
        ImageCounts("test", "counted", "a list", classes={"a": (2, 1), "b": (1, 1)}, total=(3, 2))
    )
    assert texts(known, index(a=(2, 1)), classes=["a"]) == []
    assert texts(known, index(a=(2, 1)), classes="a") == []
    assert len(texts(known, index(a=(2, 2)), classes=["a"])) == 1


def test_the_only_class_may_bear_another_name_and_others_by_alias():
    one = card(ImageCounts("test", "counted", "a list", total=(1, 1)), class_names=["a"])
    assert texts(one, index(renamed=(1, 1))) == []
    assert one.expected("test", "renamed") == (1, 1, "counted")
    counts = ImageCounts("test", "counted", "a list", classes={"a": (2, 1), "b": (1, 1)})
    other = card(counts, aliases={"first": "a"})
    assert texts(other, index(first=(2, 1), b=(1, 1))) == []
    assert other.expected("test", "first") == (2, 1, "counted")
    assert other.expected("test", "c") is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"evidence": "rumour"},
            "evidence must be counted, stated, thread or memory, not 'rumour'",
        ),
        ({"total": None}, "needs one of classes, total and num_images"),
        ({"total": (1, -1)}, "total must be a list of 2: an integer of at least 0"),
        ({"total": (1, 1.5)}, "total must be"),
        ({"num_images": True}, "num_images must be an integer"),
        ({"source": ""}, "source must be text that is not empty"),
    ],
)
def test_statements_are_checked(change, message):
    with pytest.raises(UsageError, match=message):
        ImageCounts(
            **{"split": "test", "evidence": "stated", "source": "x", "total": (1, 1), **change}
        )
    with pytest.raises(UsageError, match="domain must be industrial or medical, not 'culinary'"):
        card(domain="culinary")


# ---- the catalogue -----------------------------------------------------------------------------

OPTIONS = sorted(path.stem for path in (conf_dir() / "dataset").glob("*.yaml"))
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
    targets = compose("data", ["action=list", f"dataset@targets=[{','.join(OPTIONS)}]"]).targets
    nodes = {name: node.card for name, node in targets.items() if node.get("card")}
    return {name: build(node, f"targets.{name}.card") for name, node in nodes.items()}


def test_every_card_is_consistent(cards):
    assert cards
    for name, known in cards.items():
        totals = [counts.totals for counts in known.counts if counts.totals]
        assert known.has_normals == any(normal for normal, _ in totals) or not totals, name
        for counts in known.counts:
            assert set(counts.classes) <= set(known.class_names), name
        assert set(known.aliases.values()) <= set(known.class_names), name


@pytest.mark.parametrize("name", TOTALS)
def test_counts_of_the_published_sets(cards, name):
    known = cards[name]
    if TOTALS[name] is None:
        assert known.counts == []
        return
    normal, anomalous, num_train = TOTALS[name]
    tested = [counts for counts in known.of("test") if counts.totals]
    assert {counts.totals for counts in tested} == {(normal, anomalous)}
    assert (tested[0].evidence == "memory") == (name in FROM_MEMORY)
    trained = [sum(c.totals) if c.totals else c.num_images for c in known.of("train")]
    assert trained == ([] if num_train is None else [num_train])


def test_every_row_of_the_published_table_is_one_data_set(cards):
    rows = [row for known in cards.values() for row in known.table_rows]
    table = Path(__file__).parents[3] / "experiments" / "table1_zero_shot" / "published.csv"
    published = {line.split(",")[2] for line in table.read_text().splitlines()[1:]}
    assert {name for name in published if not name.startswith("average")} <= set(rows)
    assert len(set(rows)) == len(rows)
