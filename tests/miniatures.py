"""Each published data set in small: its official raw layout with what is peculiar to it."""

import csv
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (40, 32)
_SERIAL = [0]


def image(path: Path, size=SIZE, mode="RGB") -> Path:
    """Noise, never the same twice in a session."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _SERIAL[0] += 1
    rng = np.random.default_rng(_SERIAL[0])
    picture = Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    picture.convert(mode).save(path)
    return path


def mask(path: Path, value=255, size=SIZE, box=(8, 8, 20, 22)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((size[1], size[0]), dtype=np.uint8)
    pixels[box[1] : box[3], box[0] : box[2]] = value
    Image.fromarray(pixels).save(path)
    return path


@dataclass(frozen=True)
class Miniature:
    """How a data set is made in small, and what is to be found in it."""

    make: Callable[[Path], None]
    """Fills a folder as the official archive would."""
    folder: str
    """Where the archive belongs under `datasets_dir`."""
    counts: dict[str, tuple[int, int]]
    """Split to normal and anomalous images in all."""
    suffix: str = "zip"
    """Kind of archive."""
    num_masks: int = 0
    """Masks of the split test."""
    classes: tuple[str, ...] = ()
    wrong: dict[str, tuple[Callable[[Path], object], str]] = field(default_factory=dict)
    """Name of a wrong copy to what makes it of a good one, and the message it must be met with."""


def residue(folder: Path) -> None:
    """What operating systems leave behind."""
    for name in ("Thumbs.db", ".DS_Store", "._000.png"):
        (folder / name).write_bytes(b"residue")


def mvtec_like(root: Path, classes, defects=("broken", "bent"), good="good", num=3) -> None:
    for name in classes:
        for i in range(num):
            image(root / name / "train" / good / f"{i:03d}.png")
            image(root / name / "test" / good / f"{i:03d}.png", mode="L" if i else "RGB")
            for defect in defects:
                image(root / name / "test" / defect / f"{i:03d}.png")
                mask(root / name / "ground_truth" / defect / f"{i:03d}_mask.png")


def mvtec(root: Path) -> None:
    mvtec_like(root, ("bottle", "metal_nut"))
    for file in ("license.txt", "readme.txt"):
        (root / file).write_text("CC BY-NC-SA 4.0")
        (root / "bottle" / file).write_text("CC BY-NC-SA 4.0")
    residue(root / "bottle" / "ground_truth" / "broken")


def visa(root: Path) -> None:
    """Defect ids as mask values; JPG in capitals; labels and splits in a table."""
    rows = []
    for name in ("candle", "pcb1"):
        data = Path(name, "Data")
        for i in range(5):
            file = image(root / data / "Images" / "Normal" / f"{i:04d}.JPG")
            split = "train" if i < 2 else "test"
            rows.append((name, split, "normal", file.relative_to(root).as_posix(), ""))
        for i in range(3):
            file = image(root / data / "Images" / "Anomaly" / f"{i:03d}.JPG")
            truth = mask(root / data / "Masks" / "Anomaly" / f"{i:03d}.png", value=i + 1)
            names = [path.relative_to(root).as_posix() for path in (file, truth)]
            rows.append((name, "test", "anomaly", *names))
        (root / name / "image_anno.csv").write_text("image,label,mask\n")
    (root / "split_csv").mkdir()
    for table in ("1cls", "2cls_fewshot"):
        with (root / "split_csv" / f"{table}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("object", "split", "label", "image", "mask"), *rows])


def btad(root: Path) -> None:
    """Inside a folder of its own; ok and ko; .bmp and .png mixed; masks' endings by class."""
    for name, kind, truth in (("01", "bmp", "png"), ("02", "png", "png"), ("03", "bmp", "bmp")):
        place = root / "BTech_Dataset_transformed" / name
        for i in range(3):
            image(place / "train" / "ok" / f"{i:04d}.{kind}")
            image(place / "test" / "ok" / f"{i:04d}.{kind}")
            image(place / "test" / "ko" / f"{i:04d}.{kind}")
            mask(place / "ground_truth" / "ko" / f"{i:04d}.{truth}")


def dtd(root: Path) -> None:
    mvtec_like(root / "DTD-Synthetic", ("Blotchy_099", "Woven_127"), defects=("bad",))


def ksdd(root: Path) -> None:
    """A label file for every image, all zeros where there is no defect; .jpg and .bmp."""
    for number in range(1, 5):
        for part in range(3):
            place = root / f"kos{number:02d}"
            image(place / f"Part{part}.jpg", size=(20, 61))
            box = (4, 45, 12, 55) if part == 1 else (0, 0, 0, 0)
            mask(place / f"Part{part}_label.bmp", size=(20, 61), box=box)


def dagm(root: Path) -> None:
    """.PNG in capitals; the masks of some images; a table of them."""
    for name in ("Class1", "Class10"):
        for state, start in (("Train", 6), ("Test", 1)):
            place, lines = root / name / state, ["1"]
            for i in range(start, start + 5):
                image(place / f"{i:04d}.PNG", mode="L")
                has_mask = i - start < 2
                if has_mask:
                    mask(place / "Label" / f"{i:04d}_label.PNG")
                label = f"1\t{i:04d}_label.PNG" if has_mask else "0\t0"
                lines.append(f"{i}\t{int(has_mask)}\t{i:04d}.PNG\t{label}")
            (place / "Label" / "Labels.txt").write_text("\n".join(lines))


def headct(root: Path) -> None:
    """Labels in a table with spaces in it, for numbered images of many sizes."""
    lines = ["id, hemorrhage"]
    for i in range(8):
        image(root / "head_ct" / "head_ct" / f"{i:03d}.png", size=(30 + i, 28 + i))
        lines.append(f"{i}, {int(i < 4)}")
    (root / "labels.csv").write_text("\n".join(lines) + "\n")


def brainmri(root: Path) -> None:
    """Mixed endings in mixed case; everything once more in a folder inside."""
    for base in (root, root / "brain_tumor_dataset"):
        for i, kind in enumerate(("jpg", "JPG", "jpeg", "png")):
            image(base / "yes" / f"Y{i + 1}.{kind}", size=(30 + i, 28))
            if i < 3:
                image(base / "no" / f"{i + 1} no.{kind}", mode="L")


def br35h(root: Path) -> None:
    """A folder of unlabelled images, and another project's annotations."""
    for i in range(3):
        image(root / "yes" / f"y{i}.jpg")
        image(root / "no" / f"no{i}.jpg")
        image(root / "pred" / f"pred{i}.jpg")
        image(root / "Br35H-Mask-RCNN" / "TRAIN" / f"y{i}.jpg")


def isic(root: Path) -> None:
    for i in range(4):
        number = f"ISIC_{3 * i:07d}"
        image(root / "ISBI2016_ISIC_Part1_Test_Data" / f"{number}.jpg")
        mask(root / "ISBI2016_ISIC_Part1_Test_GroundTruth" / f"{number}_Segmentation.png")
    residue(root / "ISBI2016_ISIC_Part1_Test_GroundTruth")


def polyps(root: Path, kind="png", truth="png", images="images", masks="masks") -> None:
    for i in range(8, 12):  # 8, 9, 10, 11: sorting by text would not keep these in order
        image(root / images / f"{i}.{kind}")
        mask(root / masks / f"{i}.{truth}")


def clinicdb(root: Path) -> None:
    polyps(root, kind="tif", truth="tif", images="Original", masks="Ground Truth")


def kvasir(root: Path) -> None:
    polyps(root / "Kvasir-SEG", kind="jpg", truth="jpg")
    (root / "Kvasir-SEG" / "kavsir_bboxes.json").write_text("{}")


def endo(root: Path) -> None:
    polyps(root, kind="jpg", truth="png")


def tn3k(root: Path) -> None:
    """Masks as JPEG; images to train on beside those to test."""
    for part in ("test", "trainval"):
        for i in range(4):
            image(root / "tn3k" / f"{part}-image" / f"{i:04d}.jpg")
            mask(root / "tn3k" / f"{part}-mask" / f"{i:04d}.jpg")
    (root / "tn3k" / "tn3k-trainval-fold0.json").write_text("{}")
    (root / "tn3k" / "label4trainval.csv").write_text("")


# ---- wrong copies ------------------------------------------------------------------------------


def delete(name: str) -> Callable[[Path], object]:
    return lambda root: (root / name).unlink()


def shift(pattern: str) -> Callable[[Path], object]:
    """Every mask gets the name of the next one, as a script that pairs by order may do."""

    def act(root: Path) -> None:
        paths = sorted(root.glob(pattern), key=lambda path: (len(path.name), path.name))
        assert len(paths) > 1, pattern
        parts = [path.rename(path.with_name(f"moving {path.name}")) for path in paths]
        beyond = paths[-1].with_name(f"9999{paths[-1].name.lstrip('0123456789')}")
        for part, target in zip(parts, [*paths[1:], beyond], strict=True):
            part.rename(target)

    return act


def extra(name: str) -> Callable[[Path], object]:
    return lambda root: image(root / name)


def cut_short(name: str) -> Callable[[Path], object]:
    def act(root: Path) -> None:
        path = root / name
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])

    return act


def copied(name: str, to: str) -> Callable[[Path], object]:
    return lambda root: shutil.copytree(root / name, root / to)


def wrong(masks: str, truths: str, images: str, truncated: str, folder: tuple[str, str], messages):
    """The five wrong copies of a data set with masks."""
    return {
        "missing mask": (delete(masks), messages[0]),
        "shifted names": (shift(truths), messages[1]),
        "extra file": (extra(images), messages[2]),
        "truncated image": (cut_short(truncated), "unreadable .*cannot read image"),
        "duplicate folder": (copied(*folder), messages[3]),
    }


LACKING, UNPAIRED = "mask .*without a mask", "layout .*masks? without an image"
COUNT, REPEATED = "count .*images, not", "repeated .*the same images in two folders"
BESIDE = "remark images that are not part of it"
NO_CLASS = "count .*copy is not one of its classes"


def mvtec_wrong(name, defect):
    """The five wrong copies of a data set in the layout of MVTec AD."""
    return wrong(
        f"{name}/ground_truth/{defect}/001_mask.png",
        f"{name}/ground_truth/{defect}/*.png",
        f"{name}/test/{defect}/777.png",
        f"{name}/test/good/001.png",
        (f"{name}/test/{defect}", f"{name}/test/{defect} copy"),
        (LACKING, UNPAIRED, COUNT, REPEATED),
    )


def pairs_wrong(images: str, masks: str, kind: str, truth: str, stem="9") -> dict:
    return wrong(
        f"{masks}/{stem}{truth}",
        f"{masks}/*{truth}",
        f"{images}/777{kind}",
        f"{images}/{stem}{kind}",
        (images, f"{images} copy"),
        (LACKING, UNPAIRED, COUNT, BESIDE),
    )


KSDD_WRONG = wrong(
    "kos02/Part1_label.bmp",
    "kos02/*_label.bmp",
    "kos02/Part7.jpg",
    "kos02/Part1.jpg",
    ("kos02", "kos09"),
    (
        "layout .*images without a _label.bmp",
        UNPAIRED,
        "layout .*images without a _label.bmp",
        REPEATED,
    ),
)
DAGM_WRONG = wrong(
    "Class1/Test/Label/0001_label.PNG",
    "Class1/Test/Label/*.PNG",
    "Class1/Test/0777.PNG",
    "Class1/Test/0002.PNG",
    ("Class1", "Class1 copy"),
    (
        "layout .*defective lacks? a label file",
        UNPAIRED,
        "layout .*1 image is not listed: 0777.PNG",
        NO_CLASS,
    ),
)

MINIATURES = {
    "mvtec": Miniature(
        mvtec, "mvtec", {"test": (6, 12), "train": (6, 0)}, "tar.xz", 12,
        ("bottle", "metal_nut"), mvtec_wrong("bottle", "broken"),
    ),
    "visa": Miniature(
        visa, "visa", {"test": (6, 6), "train": (4, 0)}, "tar", 6, ("candle", "pcb1"),
        wrong(
            "pcb1/Data/Masks/Anomaly/001.png",
            "pcb1/Data/Masks/Anomaly/*.png",
            "pcb1/Data/Images/Anomaly/777.JPG",
            "pcb1/Data/Images/Normal/0003.JPG",
            ("pcb1", "pcb1 copy"),
            (
                "layout .*files? listed in .*1cls.csv (is|are) missing: .*001.png",
                "layout .*files? listed in .* (is|are) missing: .*000.png",
                "layout .*not listed in .*: 777.JPG",
                BESIDE,
            ),
        ),
    ),
    "mpdd": Miniature(
        lambda root: mvtec_like(root / "MPDD", ("tubes", "connector"), defects=("hole",)),
        "mpdd", {"test": (6, 6), "train": (6, 0)}, "zip", 6, ("connector", "tubes"),
        mvtec_wrong("MPDD/tubes", "hole"),
    ),
    "btad": Miniature(
        btad, "btad", {"test": (9, 9), "train": (9, 0)}, "zip", 9, ("01", "02", "03"),
        wrong(
            "BTech_Dataset_transformed/03/ground_truth/ko/0001.bmp",
            "BTech_Dataset_transformed/01/ground_truth/ko/*.png",
            "BTech_Dataset_transformed/02/test/ko/0777.png",
            "BTech_Dataset_transformed/01/test/ok/0001.bmp",
            ("BTech_Dataset_transformed/01", "BTech_Dataset_transformed/01 copy"),
            (LACKING, UNPAIRED, COUNT, NO_CLASS),
        ),
    ),
    "ksdd": Miniature(
        ksdd, "ksdd", {"test": (8, 4)}, "zip", 4, ("electrical commutators",), KSDD_WRONG
    ),
    "dagm": Miniature(
        dagm, "dagm", {"test": (6, 4), "train": (6, 4)}, "zip", 4, ("Class1", "Class10"), DAGM_WRONG
    ),
    "dtd": Miniature(
        dtd, "dtd", {"test": (6, 6), "train": (6, 0)}, "zip", 6, ("Blotchy_099", "Woven_127"),
        mvtec_wrong("DTD-Synthetic/Woven_127", "bad"),
    ),
    "headct": Miniature(
        headct, "headct", {"test": (4, 4)}, "zip", 0, ("brain",),
        {
            "shifted names": (shift("head_ct/head_ct/*.png"), "layout .*is missing: .*000.png"),
            "extra file": (extra("head_ct/head_ct/777.png"), "layout .*not listed in .*: 777.png"),
            "truncated image": (cut_short("head_ct/head_ct/003.png"), "unreadable "),
            "duplicate folder": (copied("head_ct/head_ct", "head_ct/copy"), BESIDE),
        },
    ),
    "brainmri": Miniature(
        brainmri, "brainmri", {"test": (3, 4)}, "zip", 0, ("brain",),
        {
            "missing image": (delete("yes/Y2.JPG"), COUNT),
            "extra file": (extra("no/777.jpg"), COUNT),
            "two of one name": (extra("no/1 no.png"), "layout .*several images of one name"),
            "truncated image": (cut_short("yes/Y3.jpeg"), "unreadable "),
            "duplicate folder": (copied("yes", "yes copy"), BESIDE),
        },
    ),
    "br35h": Miniature(
        br35h, "br35h", {"test": (3, 3)}, "zip", 0, ("brain",),
        {
            "missing image": (delete("no/no1.jpg"), COUNT),
            "extra file": (extra("yes/y777.jpg"), COUNT),
            "truncated image": (cut_short("no/no2.jpg"), "unreadable "),
            "duplicate folder": (copied("yes", "yes copy"), BESIDE),
        },
    ),
    "isic": Miniature(
        isic, "isic", {"test": (0, 4)}, "zip", 4, ("skin",),
        pairs_wrong(
            "ISBI2016_ISIC_Part1_Test_Data", "ISBI2016_ISIC_Part1_Test_GroundTruth", ".jpg",
            "_Segmentation.png", "ISIC_0000003",
        ),
    ),
    "cvc_colondb": Miniature(
        polyps, "cvc-colondb", {"test": (0, 4)}, "zip", 4, ("colon",),
        pairs_wrong("images", "masks", ".png", ".png"),
    ),
    "cvc_clinicdb": Miniature(
        clinicdb, "cvc-clinicdb", {"test": (0, 4)}, "zip", 4, ("colon",),
        pairs_wrong("Original", "Ground Truth", ".tif", ".tif"),
    ),
    "kvasir": Miniature(
        kvasir, "kvasir", {"test": (0, 4)}, "zip", 4, ("colon",),
        pairs_wrong("Kvasir-SEG/images", "Kvasir-SEG/masks", ".jpg", ".jpg"),
    ),
    "cvc_300": Miniature(
        polyps, "cvc-300", {"test": (0, 4)}, "zip", 4, ("colon",),
        pairs_wrong("images", "masks", ".png", ".png"),
    ),
    "endo": Miniature(
        endo, "endo", {"test": (0, 4)}, "zip", 4, ("colon",),
        pairs_wrong("images", "masks", ".jpg", ".png"),
    ),
    "tn3k": Miniature(
        tn3k, "tn3k", {"test": (0, 4), "train": (0, 4)}, "tar.gz", 4, ("thyroid",),
        pairs_wrong("tn3k/test-image", "tn3k/test-mask", ".jpg", ".jpg", "0001"),
    ),
}  # fmt: skip
"""The published data sets, by their options of the group `dataset`."""

VARIANTS = {
    "ksdd_thirds": Miniature(
        ksdd, "ksdd", {"test": (8, 4), "train": (24, 0)}, "zip", 4, ("electrical commutators",),
        {**KSDD_WRONG, "duplicate folder": (copied("kos02", "kos09"), COUNT)},
    ),
    "dagm_balanced": Miniature(
        dagm, "dagm", {"test": (8, 8), "train": (4, 0)}, "zip", 8, ("Class1", "Class10"), DAGM_WRONG
    ),
    "ksdd_anomalyclip": Miniature(
        lambda root: mvtec_like(root, ("electrical commutators",), defects=("defect",)),
        "sdd", {"test": (3, 3), "train": (3, 0)}, "zip", 3, ("electrical commutators",),
        mvtec_wrong("electrical commutators", "defect"),
    ),
}  # fmt: skip
"""Versions of these that are other data sets."""


def pack(folder: Path, archive: Path) -> Path:
    """Make an archive of what lies in a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w") as packed:
            for path in files:
                packed.write(path, path.relative_to(folder))
    else:
        kind = archive.name.rpartition("tar")[2].lstrip(".")
        with tarfile.open(archive, f"w:{kind}") as packed:
            for path in files:
                packed.add(path, str(path.relative_to(folder)))
    return archive


def counts_override(name: str, miniature: Miniature, group: str = "targets") -> str:
    """An override that puts a miniature's counts in the place of the published ones."""
    statements = ",".join(
        f"{{split:{split},evidence:counted,source:miniature,total:[{normal},{anomalous}]}}"
        for split, (normal, anomalous) in miniature.counts.items()
    )
    return f"{group}.{name}.card.counts=[{statements}]"
