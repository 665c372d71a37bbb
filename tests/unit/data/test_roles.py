import string
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crane.data.roles import DOUBTFUL, Roles, label_of, plain_name, same_name
from crane.errors import UsageError
from crane.samples import ANOMALOUS, NORMAL

NORMALS = [
    "good",
    "ok",
    "okay",
    "normal",
    "nominal",
    "pass",
    "passed",
    "io",
    "no_defect",
    "healthy",
]
MASKS = ["ground_truth", "GroundTruth", "gt", "mask", "Masks", "labels", "annotations", "seg"]
FILLERS = ["images", "samples", "parts", "imgs", "0", "12"]
SEPARATORS = ["_", "-", " ", "."]


@st.composite
def spelt(draw: st.DrawFn, names: list[str]) -> str:
    """A name in another case, with other separators and with words that say nothing."""
    name = draw(st.sampled_from(names)).replace("_", draw(st.sampled_from(SEPARATORS)))
    name = draw(st.sampled_from([str.lower, str.upper, str.title]))(name)
    separator = draw(st.sampled_from(SEPARATORS))
    before, after = draw(st.sampled_from(["", *FILLERS])), draw(st.sampled_from(["", *FILLERS]))
    return separator.join(part for part in (before, name, after) if part)


@settings(deadline=None)
@given(spelt(NORMALS))
def test_a_normal_name_is_normal_however_it_is_spelt(name):
    assert Roles().label(name) == NORMAL
    assert not Roles().is_mask(name)


@settings(deadline=None)
@given(spelt([name.lower() for name in MASKS]))
def test_a_folder_of_masks_is_known_however_it_is_spelt(name):
    assert Roles().is_mask(name)


@pytest.mark.parametrize(
    "name",
    ["bad", "NG", "not_ok", "no good", "abnormal", "broken", "defective", "n.i.O.", "normality?"],
)
def test_any_other_name_is_anomalous(name):
    assert Roles().label(name) == ANOMALOUS


@settings(deadline=None)
@given(st.text(min_size=1, max_size=12))
def test_keys_decide_whatever_the_name(name):
    """In any case and in either Unicode form."""
    roles = Roles.of(normal=[name])
    for form in ("NFC", "NFD"):
        assert roles.label(unicodedata.normalize(form, name)) == NORMAL
    assert roles.label(name + "x") == ANOMALOUS
    assert Roles.of(anomalous=[name]).label(name) == ANOMALOUS
    assert Roles.of(normal=["a"], anomalous=["b"]).label("c" + name) is None
    assert Roles.of(masks=[name]).is_mask(name)
    assert not Roles.of(masks=[]).is_mask("ground_truth")


@pytest.mark.parametrize(("one", "other"), DOUBTFUL.items())
def test_pairs_that_mean_either_are_doubtful(one, other):
    doubt = Roles().doubt([one, other])
    assert doubt is not None
    assert Roles.of(normal=[one]).doubt([one, other]) is None
    assert label_of(one, "label", Roles()) is None or one in "01"
    assert label_of(one, "label", Roles.of(normal=one)) == NORMAL
    assert label_of(other, "label", Roles.of(normal=one)) == ANOMALOUS


def test_a_known_bad_name_beside_an_unknown_one_is_refused():
    assert Roles().doubt(["defective", "fine"]) == (
        "it is unclear which of defective, fine is normal",
        True,
    )
    for clear in (["good", "fine"], ["scratch"], ["scratch", "dent"], ["defective"]):
        assert Roles().doubt(clear) is None


def test_a_name_cannot_be_both():
    with pytest.raises(UsageError, match="fine is both normal and anomalous"):
        Roles.of(normal=["Fine"], anomalous="fine")


@settings(deadline=None)
@given(st.one_of(st.text(string.printable, max_size=8), st.floats(), st.booleans(), st.none()))
def test_a_label_is_read_the_same_as_text(value):
    """What a CSV holds as text, JSON holds as a number or a truth value."""
    for column in ("label", "anomaly", "is_good", "class"):
        read = label_of(value, column, Roles())
        assert read in (NORMAL, ANOMALOUS, None)
        if not isinstance(value, (float, str)):
            assert read == label_of(str(value), column, Roles())


@pytest.mark.parametrize(
    ("value", "column", "label"),
    [
        (1, "anomaly", ANOMALOUS),
        (True, "is_anomalous", ANOMALOUS),
        ("no", "defective", NORMAL),
        ("1.0", "label", ANOMALOUS),
        (1, "is_good", None),
        (0.33, "label", None),
        (2, "anomaly", None),
        ("", "label", None),
    ],
)
def test_what_a_number_means_follows_from_its_column(value, column, label):
    assert label_of(value, column, Roles()) == label


def test_names_are_compared_composed():
    assert same_name("PRÜF") == same_name("pru\N{COMBINING DIAERESIS}f")
    assert plain_name("no-defect images") == "nodefect"
