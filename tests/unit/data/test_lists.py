"""Lists of images in every form they come in, and what no list is."""

import csv
import json
import shutil
import unicodedata
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crane.data import index_meta_json
from crane.errors import UsageError

ROWS = [("a/0.png", 0, ""), ("a/1.png", 0, ""), ("a/2.png", 1, "m/2.png"), ("a/3.png", 1, "")]


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    from PIL import Image

    folder = tmp_path_factory.mktemp("listed")
    for image, _, mask in ROWS:
        for name in filter(None, (image, mask)):
            (folder / name).parent.mkdir(exist_ok=True)
            Image.new("L", (8, 6), 9).save(folder / name)
    return folder


def read(root, file, **options):
    options = {"split": "test", "mask_threshold": 0, **options}
    return index_meta_json("mine", root, options.pop("split"), file=file, **options)


def found(index):
    return [
        (index.relative(s.image), s.label, s.mask and index.relative(s.mask)) for s in index.samples
    ]


EXPECTED = [(image, label, mask or None) for image, label, mask in ROWS]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize(
    ("names", "normal", "bad"),
    [
        (("path", "label", "mask"), "good", "scratch"),
        (("Image Path", "Anomaly", "Mask-Path"), "0", "1"),
        (("file", "class", "gt"), "OK", "NG"),
        (("filename", "is_defective", "mask"), "no", "yes"),
    ],
)
def test_tables(root, separator, names, normal, bad):
    with (root / "list.csv").open("w", newline="", encoding="utf-8-sig") as file:
        table = csv.writer(file, delimiter=separator)
        table.writerow(names)
        table.writerows((image, bad if label else normal, mask) for image, label, mask in ROWS)
    index = read(None, root / "list.csv")
    assert found(index) == EXPECTED
    assert index.listed_in == "list.csv"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_names_may_hold_the_ends_of_lines(tmp_path, write, end):
    names = ["a\rb.png", "c\nd.png", "e\u2028f.png"]
    for name in names:
        write.image(tmp_path / name)
    lines = ["path,label", *(f'"{name}",{place % 2}' for place, name in enumerate(names))]
    (tmp_path / "ends.csv").write_bytes(end.join(lines).encode())
    assert [s.image.name for s in read(tmp_path, "ends.csv").samples] == [
        names[0],
        names[2],
        names[1],
    ]
    rows = [
        json.dumps({"path": n, "label": i % 2}, ensure_ascii=False) for i, n in enumerate(names)
    ]
    (tmp_path / "ends.jsonl").write_bytes("\n".join(rows).encode())
    assert len(read(tmp_path, "ends.jsonl").samples) == 3


def test_parquet_and_json_lines(root):
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{"image": i, "anomaly": bool(a), "mask": m or None} for i, a, m in ROWS]
    pq.write_table(pa.Table.from_pylist(rows), root / "list.parquet")
    assert found(read(root, "list.parquet")) == EXPECTED
    (root / "list.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert found(read(root, "list.jsonl")) == EXPECTED
    (root / "list.json").write_text(json.dumps(rows))
    assert found(read(root, "list.json")) == EXPECTED


def test_splits_and_classes_of_a_table(root):
    lines = ["path,label,category,split"]
    lines += [
        f"{image},{label},{'ab'[i % 2]},{'train' if i < 2 else 'test'}"
        for i, (image, label, _) in enumerate(ROWS)
    ]
    (root / "split.csv").write_text("\n".join(lines))
    assert read(root, "split.csv").class_names == ("a", "b")
    assert read(root, "split.csv", split="train").num_normal == 2
    with pytest.raises(UsageError, match=r"no split validation in .*, only train, test"):
        read(root, "split.csv", split="validation")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\na/0.png,yes\na/2.png,no", "unclear whether 'yes' is normal.*normal="),
        (
            "path,label\na/0.png,fine\na/2.png,scratch",
            "which of the labels fine, scratch is normal",
        ),
        ("path,good\na/0.png,1\na/2.png,0", "no column of labels"),
        ("name,label\nx,1", "no column of paths"),
        ("path,label\na/0.png", "more or fewer cells"),
        ("path,label\na/0.png,0,1", "more or fewer cells"),
        ("path,label\na/0.png,0\na/0.png,0", "lists files twice"),
        ("path,label\n../a.png,0", "a path outside that folder"),
        ("path,path\na,b", "two columns of one name|no column of labels"),
        ("path,label\n" + "x" * 5000 + ",0", "is missing"),
        ("", "no split test"),
    ],
)
def test_wrong_tables(root, text, message):
    (root / "wrong.csv").write_text(text)
    with pytest.raises(UsageError, match=message):
        read(root, "wrong.csv")


def test_keys_say_what_labels_mean(root, caplog):
    (root / "yes.csv").write_text("path,label\na/0.png,yes\na/1.png,no\na/2.png,maybe")
    index = read(root, "yes.csv", normal="yes")
    assert (index.num_normal, index.num_anomalous) == (1, 2)
    index = read(root, "yes.csv", normal=["yes"], anomalous=["no"])
    assert (index.num_normal, index.num_anomalous) == (1, 1)
    assert "left out 1 image of other labels" in caplog.text


def test_a_class_that_is_listed_twice_is_named(root):
    row = '[{"img_path": "a/0.png", "anomaly": 0}]'
    (root / "twice.json").write_text(f'{{"test": {{"a": {row}, "a": {row}}}}}')
    with pytest.raises(UsageError, match="holds 'a' twice"):
        read(root, "twice.json")


def test_entries_without_a_path_are_counted(root, caplog):
    rows = [{"img_path": "", "anomaly": 0}, {"img_path": "a/0.png", "anomaly": "0"}]
    (root / "holes.json").write_text(json.dumps({"train": {"a": rows[:1]}, "test": {"a": rows}}))
    assert read(root, "holes.json").num_normal == 1
    assert "left out 1 entry of test without a path" in caplog.text
    with pytest.raises(UsageError, match=r"no entry of train has a path"):
        read(root, "holes.json", split="train")


def test_names_pair_in_either_unicode_form(tmp_path, write):
    name = unicodedata.normalize("NFD", "prüfling.png")
    write.image(tmp_path / name)
    row = {"img_path": unicodedata.normalize("NFC", name), "anomaly": 0}
    (tmp_path / "meta.json").write_text(json.dumps({"test": {"a": [row]}}))
    assert read(tmp_path, "meta.json").samples[0].image.name == name


JUNK = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-2, 2), st.floats(), st.text(max_size=4)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(
                ["test", "a", "img_path", "anomaly", "mask_path", "cls_name", "box", "meta"]
            ),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=12,
)


@settings(
    deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(JUNK, st.sampled_from(["img_path", "anomaly", "mask_path", "box", "cls_name", None]))
def test_whatever_a_meta_json_holds_ends_in_one_sentence(root, junk, field):
    row = {"img_path": "a/2.png", "anomaly": 1, "mask_path": "m/2.png"}
    content = {"test": {"a": [{**row, field: junk}]}} if field else junk
    (root / "fuzz.json").write_text(json.dumps(content))
    with suppress(UsageError):
        assert read(root, "fuzz.json").samples


@settings(
    deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.text("ab/.,;\t\n\"'=\\01\x00ü", max_size=60),
    st.sampled_from(["", "path,label\n", "path;label;split\n"]),
)
def test_whatever_a_table_holds_ends_in_one_sentence(root, text, header):
    (root / "fuzz.csv").write_text(header + text, encoding="utf-8")
    with suppress(UsageError):
        assert read(root, "fuzz.csv").samples


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.binary(max_size=80), st.sampled_from(["x.csv", "x.json", "x.parquet", "x.jsonl"]))
def test_whatever_bytes_a_list_holds_end_in_one_sentence(root, content, name):
    (root / name).write_bytes(content)
    with pytest.raises(UsageError):
        read(root, name)


def test_real_iad(root, tmp_path):
    shutil.copytree(root / "a", tmp_path / "jack" / "OK")
    rows = [
        {"category": "jack", "anomaly_class": kind, "image_path": f"OK/{i}.png", "mask_path": None}
        for i, kind in enumerate(("OK", "OK", "BX"))
    ]
    meta = {"meta": {"normal_class": "OK", "prefix": "jack/"}, "train": rows[:1], "test": rows}
    (tmp_path / "jack.json").write_text(json.dumps(meta))
    index = read(tmp_path, "jack.json")
    assert (index.class_names, index.num_normal, index.num_anomalous) == (("jack",), 2, 1)
    assert {s.defect for s in index.samples} == {"good", "BX"}
