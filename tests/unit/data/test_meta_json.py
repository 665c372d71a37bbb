import json
import logging

import pytest

from crane.data import index_meta_json
from crane.datasets.preparation import as_meta
from crane.errors import UsageError


def rows(prefix="", num=3):
    """(img_path, mask_path, anomaly) of the bottle class of the fixture."""
    good = [(f"{prefix}bottle/test/good/{i:03d}.png", "", 0) for i in range(num)]
    folder = f"{prefix}bottle/ground_truth/broken"
    bad = [
        (f"{prefix}bottle/test/broken/{i:03d}.png", f"{folder}/{i:03d}_mask.png", 1)
        for i in range(num)
    ]
    return good + bad


def read(root, split="test", **options):
    return index_meta_json("mine", root, split, mask_threshold=0, **options)


def test_reads_what_is_listed(mvtec_root, write):
    write.meta(mvtec_root, {"bottle": rows()})
    index = read(mvtec_root)
    assert (index.num_normal, index.num_anomalous) == (3, 3)
    assert [s.mask.name for s in index.samples if s.mask] == [f"00{i}_mask.png" for i in range(3)]
    assert {s.defect for s in index.samples} == {"good", "broken"}
    assert index.fingerprint() == read(mvtec_root, classes=["bottle"]).fingerprint()


@pytest.mark.parametrize("prefix", ["/home/someone/data/mvtec/", "D:\\sets\\mvtec\\"])
def test_absolute_paths_are_found_by_their_tails(mvtec_root, write, prefix):
    listed = [(i.replace("/", "\\") if "\\" in prefix else i, m, a) for i, m, a in rows(prefix)]
    write.meta(mvtec_root, {"bottle": listed})
    index = read(mvtec_root)
    assert index.relative(index.samples[0].image) == "bottle/test/good/000.png"
    assert all(s.mask for s in index.samples if s.label)


def test_anomalous_image_without_mask(mvtec_root, write, caplog):
    listed = rows()
    listed[3] = (*listed[3][:1], "", 1)
    listed[4] = (*listed[4][:1], "bottle/ground_truth", 1)  # a folder: published for "none"
    write.meta(mvtec_root, {"bottle": listed})
    with caplog.at_level(logging.WARNING):
        index = read(mvtec_root)
    assert [s.mask is None for s in index.samples if s.label] == [True, True, False]
    assert "2 of 3 anomalous images have no mask" in caplog.text


def test_an_image_may_have_a_list_or_a_folder_of_masks(mvtec_root, write):
    listed = rows(num=2)
    truth = mvtec_root / "bottle/ground_truth/broken"
    write.mask(truth / "000_more.png", box=(14, 4, 16, 6))
    (truth / "001").mkdir()
    (truth / "001_mask.png").rename(truth / "001/0.png")
    write.mask(truth / "001/1.png", box=(14, 4, 16, 6))
    listed[2] = (listed[2][0], [listed[2][1], "bottle/ground_truth/broken/000_more.png"], 1)
    listed[3] = (listed[3][0], "bottle/ground_truth/broken/001", 1)
    write.meta(mvtec_root, {"bottle": listed})
    index = read(mvtec_root)
    assert [int(index.read_mask(s).sum()) for s in index.samples if s.label] == [68, 68]
    meta = as_meta({"test": index})["test"]["bottle"]
    write.meta(
        mvtec_root, {"bottle": [(r["img_path"], r["mask_path"], r["anomaly"]) for r in meta]}
    )
    assert read(mvtec_root).fingerprint() == index.fingerprint()


def test_masks_of_normal_images_are_left_out(mvtec_root, write):
    listed = [(i, m or "bottle/ground_truth/broken/003_mask.png", a) for i, m, a in rows(num=1)]
    write.meta(mvtec_root, {"bottle": listed})
    assert read(mvtec_root).samples[0].mask is None


def test_a_list_paired_by_order_is_caught(mvtec_root, write):
    listed = rows(num=4)
    masks = [m for _, m, a in listed if a]
    shifted = masks[1:] + masks[:1]
    bad = [(i, m, 1) for (i, _, a), m in zip(listed[4:], shifted, strict=True) if a]
    write.meta(mvtec_root, {"bottle": listed[:4] + bad})
    with pytest.raises(
        UsageError, match=r"000\.png is listed with the mask 001_mask\.png.*has shifted"
    ):
        read(mvtec_root)


def test_a_mask_of_an_unrelated_name_is_believed(mvtec_root, write):
    write.mask(mvtec_root / "bottle" / "ground_truth" / "x9.png")
    write.meta(mvtec_root, {"bottle": [(rows()[3][0], "bottle/ground_truth/x9.png", 1)]})
    assert read(mvtec_root).samples[0].mask.name == "x9.png"


def test_same_names_in_other_folders_are_no_shift(mvtec_root, write):
    listed = []
    for part in ("kos01", "kos02"):
        write.image(mvtec_root / part / "Part5.png")
        write.mask(mvtec_root / part / "Part5_label.png")
        listed.append((f"{part}/Part5.png", f"{part}/Part5_label.png", 1))
    write.meta(mvtec_root, {"kos": listed})
    assert [s.mask.parent.name for s in read(mvtec_root).samples] == ["kos01", "kos02"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            ("bottle/test/good/999.png", "", 0),
            r"data set mine: 1 file .*missing: bottle/test/good/999\.png",
        ),
        (("bottle/test/broken/003.png", "bottle/none.png", 1), r"missing: bottle/none\.png"),
        (("/abs/none/1.png", "", 0), "missing: /abs/none/1.png"),
        (("../mvtec/bottle/test/good/000.png", "", 0), "a path outside that folder"),
        (
            ("bottle/test/good/003.png", "", 2),
            r"entry 6 of test/bottle: anomaly: it is unclear whether 2 .*set normal=\[LABEL\]",
        ),
        (("bottle/test/good/000.png", "", 0), "lists files twice"),
        (("bottle/test/broken/003.png", rows()[3][1], 1), "bears the name of"),
    ],
)
def test_wrong_entries_are_named(mvtec_root, write, row, message):
    write.meta(mvtec_root, {"bottle": [*rows(), row]})
    with pytest.raises(UsageError, match=message):
        read(mvtec_root)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"cannot read .*meta\.json"),
        ("[]", "mine has no split test in .*, only empty ones"),
        ("7", "must hold an object of splits or rows of images, not a int"),
        ('{"train": {}}', r"targets\.mine\.split.*mine has no split test"),
        ('{"test": {"bottle": {}}}', "test/bottle: must be a list of images, not a dict"),
        (
            '{"test": {"bottle": ["a.png"]}}',
            "entry 0 of test/bottle: must be an object with a path and a label",
        ),
        (
            '{"test": {"bottle": [{"anomaly": 1}]}}',
            "entry 0 of test/bottle: no column of paths .*, only anomaly",
        ),
        ('{"test": {"bottle": []}}', "mine has no split test"),
    ],
)
def test_wrong_files(mvtec_root, text, message):
    (mvtec_root / "meta.json").write_text(text)
    with pytest.raises(UsageError, match=message):
        read(mvtec_root)


def test_wrong_class_names_and_choices(mvtec_root, write):
    path = write.meta(mvtec_root, {"bottle": rows()})
    with pytest.raises(UsageError, match="mine has no class cable; choose from bottle"):
        read(mvtec_root, classes=["cable"])
    meta = json.loads(path.read_text())
    meta["test"]["bottle"][0]["cls_name"] = "cable"
    path.write_text(json.dumps(meta))
    with pytest.raises(UsageError, match="cls_name: is cable, but it is listed under bottle"):
        read(mvtec_root)


def test_no_list_at_all(mvtec_root):
    with pytest.raises(UsageError, match=r"holds no meta\.json; change .*targets\.mine\.root"):
        read(mvtec_root)


def test_boxes_are_read(tmp_path, write):
    write.image(tmp_path / "a.png")
    path = write.meta(tmp_path, {"thing": [("a.png", "", 0)] * 2})
    meta = json.loads(path.read_text())
    for entry, box in zip(meta["test"]["thing"], ([0, 8, 24, 16], [0, 0, 24, 8]), strict=True):
        entry["box"] = box
    path.write_text(json.dumps(meta))
    index = read(tmp_path)
    assert [s.box for s in index.samples] == [(0, 0, 24, 8), (0, 8, 24, 16)]
    meta["test"]["thing"][0]["box"] = [0, 0, 24]
    path.write_text(json.dumps(meta))
    with pytest.raises(UsageError, match="entry 0 of test/thing: box: "):
        read(tmp_path)
    meta["test"]["thing"][0]["box"] = [0, 0, 24, 8]
    path.write_text(json.dumps(meta))
    with pytest.raises(UsageError, match="lists files twice"):
        read(tmp_path)
