import logging
import os
import shutil
import unicodedata
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from crane.data import index_folder, index_meta_json
from crane.data.doubts import examine
from crane.data.filenames import pair_masks
from crane.errors import UsageError
from crane.runs import MEAN
from crane.types import ANOMALOUS, NORMAL


def read(root, split="test", **options):
    return index_folder("mine", root, split, mask_threshold=0, **options)


def listing(index):
    return [
        (index.relative(s.image), s.label, s.class_name, s.defect, s.mask and s.mask.name)
        for s in index.samples
    ]


def test_mvtec_layout(mvtec_root):
    index = read(mvtec_root, classes="cable")
    assert listing(index) == [
        *[(f"cable/test/good/{i:03d}.png", NORMAL, "cable", "good", None) for i in range(4)],
        *[
            (f"cable/test/broken/{i:03d}.png", ANOMALOUS, "cable", "broken", f"{i:03d}_mask.png")
            for i in range(4)
        ],
    ]
    assert read(mvtec_root, classes=["cable", "bottle"]).class_names == ("bottle", "cable")


def test_train_split(mvtec_root):
    index = read(mvtec_root, "train")
    assert (index.num_normal, index.num_anomalous, index.has_masks) == (8, 0, False)


def test_one_class_without_its_level(mvtec_root):
    index = read(mvtec_root / "bottle")
    assert index.class_names == ("bottle",)
    assert index.num_anomalous == 4
    assert index.has_masks


@pytest.mark.parametrize("normal", ["good", "normal", "OK", "No"])
def test_own_folder(tmp_path, write, normal):
    write.image(tmp_path / "tiles" / normal / "a.JPG")
    write.image(tmp_path / "tiles" / "cracked" / "b.PNG")
    write.image(tmp_path / "tiles" / "stained" / "c.webp")
    index = read(tmp_path / "tiles")
    assert [(s.label, s.defect) for s in index.samples] == [
        (NORMAL, "good"),
        (ANOMALOUS, "cracked"),
        (ANOMALOUS, "stained"),
    ]
    assert index.class_names == ("tiles",)
    assert not index.has_masks
    with pytest.raises(UsageError, match=r"mine has no split train in .*tiles, only test"):
        read(tmp_path / "tiles", "train")


def test_own_folder_with_masks_and_classes(tmp_path, write):
    for name in ("a", "b"):
        write.image(tmp_path / name / "ok" / "1.png")
        write.image(tmp_path / name / "ko" / "2.bmp")
        write.mask(tmp_path / name / "Masks" / "ko" / "02_mask.png")
    index = read(tmp_path)
    assert index.class_names == ("a", "b")
    assert [s.mask is not None for s in index.samples] == [False, True, False, True]


def test_residue_and_unlabelled_folders_are_left_out(mvtec_root, write):
    before = listing(read(mvtec_root))
    good = mvtec_root / "bottle" / "test" / "good"
    for name in ("Thumbs.db", ".DS_Store", "._000.png", ".hidden.png"):
        (good / name).write_bytes(b"x")
    (mvtec_root / "bottle" / "ground_truth" / "broken" / "Thumbs.db").write_bytes(b"x")
    write.image(mvtec_root / "__MACOSX" / "bottle" / "test" / "good" / "000.png")
    write.image(mvtec_root / "bottle" / "test" / "pred" / "000.png")
    assert listing(read(mvtec_root)) == before


def test_unknown_files_are_named(mvtec_root, caplog):
    (mvtec_root / "bottle" / "test" / "good" / "9.gif").write_bytes(b"x")
    with caplog.at_level(logging.WARNING):
        read(mvtec_root)
    assert "9.gif" in caplog.text


def test_missing_mask_is_kept_and_named(mvtec_root, caplog):
    (mvtec_root / "bottle" / "ground_truth" / "broken" / "002_mask.png").unlink()
    with caplog.at_level(logging.WARNING):
        index = read(mvtec_root)
    lacking = [s.image.name for s in index.samples if s.label and s.mask is None]
    assert lacking == ["002.png"]
    assert "1 of 8 anomalous images have no mask" in caplog.text
    assert "bottle/test/broken/002.png" in caplog.text


def test_shifted_masks_are_caught(mvtec_root):
    masks = mvtec_root / "cable" / "ground_truth" / "broken"
    for i in reversed(range(4)):
        (masks / f"{i:03d}_mask.png").rename(masks / f"{i + 1:03d}_mask.png")
    with pytest.raises(
        UsageError, match=r"1 mask without an image in .*cable/ground_truth/broken: 004_mask.png"
    ):
        read(mvtec_root)


def test_extra_mask_folder_is_caught(mvtec_root, write):
    write.mask(mvtec_root / "cable" / "ground_truth" / "bent" / "000_mask.png")
    with pytest.raises(UsageError, match=r"ground_truth/bent.*000_mask.png"):
        read(mvtec_root)


def test_masks_of_normal_images_say_nothing(mvtec_root, write):
    before = listing(read(mvtec_root))
    write.mask(mvtec_root / "cable" / "ground_truth" / "good" / "000_mask.png", value=0)
    assert listing(read(mvtec_root)) == before


def test_masks_of_the_other_split_are_not_unpaired(mvtec_root, write):
    write.image(mvtec_root / "cable" / "train" / "broken" / "100.png")
    write.mask(mvtec_root / "cable" / "ground_truth" / "broken" / "100_mask.png")
    assert read(mvtec_root).num_anomalous == 8
    train = read(mvtec_root, "train")
    assert [s.mask.name for s in train.samples if s.mask] == ["100_mask.png"]


def test_two_images_with_one_stem(mvtec_root, write):
    write.image(mvtec_root / "cable" / "test" / "good" / "000.jpg")
    with pytest.raises(UsageError, match=r"000\.jpg, 000\.png"):
        read(mvtec_root)


def test_masks_may_lie_flat(mvtec_root):
    """As in the authors' copy of ISIC: skin/ground_truth/ISIC_1_Segmentation.png."""
    before = listing(read(mvtec_root))
    truth = mvtec_root / "cable" / "ground_truth"
    for mask in (truth / "broken").iterdir():
        mask.rename(truth / mask.name.replace("_mask", "_Segmentation"))
    (truth / "broken").rmdir()
    after = listing(read(mvtec_root))
    assert [row[:4] for row in after] == [row[:4] for row in before]
    assert sum("Segmentation" in (row[4] or "") for row in after) == 4


def test_masks_both_flat_and_in_folders_are_refused(mvtec_root, write):
    write.mask(mvtec_root / "cable" / "ground_truth" / "000_mask.png")
    with pytest.raises(UsageError, match=r"several masks of 000\.png in .*; .* masks=\[NAME\]"):
        read(mvtec_root)


def test_nested_copy_is_refused(tmp_path, write):
    for label in ("yes", "no"):
        write.image(tmp_path / "mri" / label / "1.png")
        write.image(tmp_path / "mri" / "copy" / label / "1.png")
    with pytest.raises(UsageError, match="counted twice"):
        read(tmp_path / "mri")


def test_anomalies_only(mvtec_root):
    shutil.rmtree(mvtec_root / "cable" / "test" / "good")
    assert read(mvtec_root, classes="cable").num_normal == 0


def test_no_class_is_called_as_the_mean_over_classes_is(mvtec_root, write):
    (mvtec_root / "cable").rename(mvtec_root / MEAN)
    with pytest.raises(
        UsageError, match=r"data set mine: no class may be called 'mean'.*; rename its folder"
    ):
        read(mvtec_root)
    assert read(mvtec_root, classes="bottle").class_names == ("bottle",)
    write.meta(mvtec_root, {MEAN: [("bottle/test/good/000.png", "", 0)]})
    with pytest.raises(UsageError, match=r"or the class in meta\.json"):
        index_meta_json("mine", mvtec_root, "test", mask_threshold=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "tset"}, r"targets\.mine\.split.*no split tset in .*, only train, test"),
        ({"classes": ["bottel"]}, r"targets\.mine\.classes.*no class bottel; .*bottle, cable"),
        ({"classes": []}, "list is empty.*bottle, cable"),
    ],
)
def test_wrong_choices_show_the_alternatives(mvtec_root, options, message):
    with pytest.raises(UsageError, match=message):
        read(mvtec_root, **options)


def test_missing_root_says_what_to_fetch(tmp_path):
    with pytest.raises(
        UsageError,
        match=r"none does not exist; unpack .*example\.org.*or change .*targets\.mine\.root",
    ):
        read(tmp_path / "none", fetch="unpack https://example.org/a.zip here")
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="file is not a folder; change datasets_dir"):
        read(tmp_path / "file")


def test_folders_of_no_known_layout(tmp_path, write):
    write.image(tmp_path / "cats" / "1.png")
    with pytest.raises(UsageError, match="cats/"):
        read(tmp_path)
    (tmp_path / "empty" / "good").mkdir(parents=True)
    with pytest.raises(UsageError, match="data set mine: no images under"):
        read(tmp_path / "empty")
    (tmp_path / "nothing").mkdir()
    with pytest.raises(UsageError, match="no folders"):
        read(tmp_path / "nothing")


def test_masks_beside_images(tmp_path, write, caplog):
    for label in ("good", "bad"):
        for i in range(2):
            write.image(tmp_path / label / f"s0{i}.png", seed=i)
            write.mask(tmp_path / label / f"s0{i}_mask.png")
            write.image(tmp_path / label / "deep" / f"{i}.jpg", seed=i)
            write.mask(tmp_path / label / "deep" / f"{i}.png")
    index = read(tmp_path)
    assert (index.num_normal, index.num_anomalous) == (4, 4)
    assert sorted(s.mask.name for s in index.samples if s.mask) == [
        *("0.png", "1.png", "s00_mask.png", "s01_mask.png")
    ]
    assert "left out 4 masks of normal images" in caplog.text


SEVERAL = {
    "folders, as MVTec LOCO AD": "box/ground_truth/logical/00{image}/00{part}.png",
    "numbered": "box/ground_truth/logical/00{image}_mask_{part}.png",
    "numbered only": "box/ground_truth/logical/00{image}_{part}.png",
    "flat": "box/ground_truth/{image}_mask{part}.png",
    "beside": "box/test/logical/00{image}_mask_{part}.png",
}


@pytest.mark.parametrize("form", SEVERAL.values(), ids=SEVERAL)
@pytest.mark.parametrize("invert", [False, True])
def test_several_masks_of_one_image(tmp_path, write, form, invert):
    for i in range(2):
        write.image(tmp_path / "box/test/good" / f"{i}.png")
        write.image(tmp_path / "box/test/logical" / f"00{i}.png")
        for part in range(2):
            path = tmp_path / form.format(image=i, part=part)
            write.mask(path, box=(2 + 8 * part, 2, 6 + 8 * part, 6))
            if invert:
                ImageOps.invert(Image.open(path)).save(path)
    index = read(tmp_path, mask_invert=invert)
    assert [len(s.masks) for s in index.samples] == [0, 0, 2, 2]
    masks = [index.read_mask(s) for s in index.samples if s.mask]
    assert [int(mask.sum()) for mask in masks] == [32, 32]
    assert not examine(index, "")
    before = index.fingerprint()
    write.mask(tmp_path / form.format(image=0, part=7))
    assert read(tmp_path, mask_invert=invert).fingerprint() != before
    write.mask(tmp_path / form.format(image=1, part=7), size=(5, 5))
    index = read(tmp_path, mask_invert=invert)
    with pytest.raises(UsageError, match=r"masks of one image differ in size: .*7\.png"):
        index.read_mask(index.samples[-1])


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        ("test/{label}/images", "test/{label}/masks"),
        ("{label}", "mask"),
        ("{label}", "mask/{label}"),
        ("{label}", "{label}_mask"),
        ("images/{label}", "masks/{label}"),
        ("Data/Images/{label}", "Data/Masks/{label}"),
        ("{label}/train", "GT/{label}"),
        ("part/test/{label}", "part/ground truth/{label}"),
        ("test/part/{label}", "test/ground_truth/part/{label}"),
        ("part/{label}/2024/05", "part/annotations/{label}/2024/05"),
        ("part/test_public/{label}", "part/test_public/ground_truth/{label}"),
    ],
)
def test_layouts(tmp_path, write, images, masks):
    for label in ("good", "bad"):
        for i in range(3):
            write.image(tmp_path / images.format(label=label) / f"{i}.png", seed=i)
    for i in range(3):
        write.mask(tmp_path / masks.format(label="bad") / f"{i}.png")
    split = "train" if "train" in images else "test_public" if "public" in images else "test"
    index = read(tmp_path, split)
    assert (index.num_normal, index.num_anomalous) == (3, 3)
    assert sum(s.mask is not None for s in index.samples) == 3
    assert index.class_names == ("part",) if "part" in images else (tmp_path.name,)


def test_what_is_no_image_is_counted_and_named(mvtec_root, caplog):
    good = mvtec_root / "bottle" / "test" / "good"
    (good / "lost.png").symlink_to(good / "nowhere.png")
    os.mkfifo(good / "pipe.png")
    (good / "a.gif").write_bytes(b"x")
    (good / "notes.txt").write_text("x")
    assert read(mvtec_root, classes="bottle").num_normal == 4
    assert "left out 3 files that are not images: a.gif, lost.png" in caplog.text


def test_a_folder_of_masks_is_no_folder_of_images(tmp_path, write):
    for i in range(2):
        write.image(tmp_path / "good" / f"{i}.png")
        write.image(tmp_path / "bad" / f"{i}.png")
        write.mask(tmp_path / "wahrheit" / f"{i}.png")
    with pytest.raises(UsageError, match=r"wahrheit look like masks.*set masks=\[wahrheit\]"):
        read(tmp_path)
    assert read(tmp_path, masks="wahrheit").has_masks
    assert read(tmp_path, anomalous=["bad"]).num_anomalous == 2


def test_unclear_labels_are_refused_with_the_key(tmp_path, write, caplog):
    for label in ("defective", "fine"):
        write.image(tmp_path / "test" / label / "0.png")
    with pytest.raises(UsageError, match=r"which of defective, fine is normal; set normal="):
        read(tmp_path)
    assert read(tmp_path, normal="fine").num_normal == 1
    for label in ("yes", "no"):
        write.image(tmp_path / "q" / label / "0.png")
    assert read(tmp_path / "q").num_normal == 1
    assert "if it means rejected, yes is normal; set normal=[NAME]" in caplog.text
    assert read(tmp_path / "q", normal="yes").samples[0].image.parent.name == "yes"


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sets(st.text("aäéñ한b1 ", min_size=1, max_size=5).map(str.strip).filter(bool), max_size=5),
    st.sampled_from(["NFC", "NFD"]),
    st.sampled_from(["", "_mask", "_GT", "-label"]),
)
def test_masks_pair_in_either_unicode_form(stems, form, ending):
    composed = {unicodedata.normalize("NFC", stem) for stem in stems}
    images = [Path(f"{stem}.png") for stem in composed]
    masks = [Path(unicodedata.normalize(form, f"{stem}{ending}.png")) for stem in composed]
    pairs = pair_masks(images, masks, "folder")
    assert pairs == {i: (m,) for i, m in zip(images, masks, strict=True)}
