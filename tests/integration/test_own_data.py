"""What a user's own folders and lists make of commands: read right, or refused in one sentence."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

WHITE = np.zeros((40, 40), np.uint8)
WHITE[8:20, 8:20] = 255


def draw(root: Path, *folders: str, num: int = 3, mask: str | None = None) -> None:
    """Noisy images in each folder, and masks of them in `mask`."""
    for place, folder in enumerate(folders):
        for i in range(num):
            pixels = np.random.default_rng([place, i]).integers(90, 140, (40, 40, 3), np.uint8)
            (root / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(root / folder / f"{i}.png")
    for i in range(num if mask else 0):
        (root / str(mask)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(WHITE).save(root / str(mask) / f"{i}.png")


AD_2 = "c/train/good c/test_public/good c/test_public/bad"
CASES = {  # folders of images, folder of masks, key, what is said
    "mask folder": ("good NG", "mask", "", "3 normal (good), 3 anomalous (NG), masks of 3 of 3"),
    "other names": ("test/normal_images test/defective", "", "", "3 normal (normal_images)"),
    "a level": ("test/normal/images test/bad/images", "test/bad/masks", "", "masks of 3 of 3"),
    "yes and no": ("yes no", "", "", "if it means rejected, yes is normal"),
    "yes is normal": ("yes no", "", "normal=[yes]", "3 normal (yes), 3 anomalous (no)"),
    "true and false": ("true false", "", "", "none of which says what is normal"),
    "0 and 1": ("0 1", "", "", "none of which says what is normal"),
    "0 is normal": ("0 1", "", "normal=0", "3 normal (0), 3 anomalous (1)"),
    "fine or bad": ("test/bad test/fine", "", "", "unclear which of bad, fine is normal"),
    "masks by key": ("good bad", "x", "masks=[x]", "masks of 3 of 3 from x"),
    "masks as images": ("good bad", "wahr", "", "look like masks"),
    "left out by key": ("good bad old", "", "anomalous=[bad]", "left out, 3 images lie in no"),
    "MVTec AD 2": (AD_2, "", "", "no masks, split test_public"),
    "its test split": (AD_2, "", "split=test_public", "c: 3 normal (good), 3 anomalous (bad)"),
    "inverted": ("good bad", "mask/bad", "mask_invert=true", "look inverted"),
}

REFUSED = ("true and false", "0 and 1", "fine or bad", "masks as images")
"""Cases in which it is unclear what counts; all others can be used."""


@pytest.mark.parametrize("case", CASES)
def test_verify_says_what_counts(crane, tmp_path, case):
    folders, mask, key, said = CASES[case]
    draw(tmp_path / "own", *folders.split(), mask=mask)
    keys = [f"targets.folder.{one}" for one in (f"root={tmp_path / 'own'}", key) if one]
    done = crane("data", "verify", "folder", *keys)
    assert said in done.out + done.err
    assert done.code == (2 if case in REFUSED else 0), done.out + done.err
    assert "Traceback" not in done.err


def test_training_on_one_label_is_refused_with_the_counts(crane, tmp_path, tiny):
    draw(tmp_path / "own", "good", num=4)
    done = crane(
        "train", "source=[folder]", f"source.folder.root={tmp_path / 'own'}", "targets=[]", *tiny
    )
    assert done.code == 2
    assert "uses 4 normal and 0 anomalous ones" in done.err


@pytest.mark.long
def test_two_own_folders_in_one_run(crane, tmp_path, tiny):
    for name in ("bolts", "nuts"):
        draw(tmp_path / name, "ok", "bent", mask="gt/bent")
    place = [
        f"source.folder.root={tmp_path / 'bolts'}",
        f"targets.folder_2.root={tmp_path / 'nuts'}",
    ]
    done = crane("train", "source=[folder]", "targets=[folder_2]", *place, *tiny, "run_dir=out")
    assert done.code == 0, done.err
    assert "folder_2,nuts" in Path("out/results.csv").read_text()
    assert "targets folder_2: nuts: 3 normal (ok), 3 anomalous (bent)" in done.out + done.err
    twice = crane("train", "source=[folder,folder]", *place, *tiny)
    assert twice.code == 2
    assert "lists folder twice; folder, folder_2" in twice.err
    scored = crane(
        *("predict", f"checkpoint={Path('out/prompts/epoch_1.safetensors').absolute()}"),
        *(f"input={tmp_path / 'nuts'}", "accelerator=cpu", "num_workers=0", "output=nuts/seen"),
    )
    assert scored.code == 0, scored.err
    assert "9 images are scored; no labels are read" in scored.out + scored.err
    assert "folders of masks are taken as images: gt" in scored.out + scored.err
    os.mkfifo(tmp_path / "nuts" / "pipe.png")
    (tmp_path / "nuts" / "old.gif").write_bytes(b"x")
    again = crane(
        *("predict", f"checkpoint={Path('out/prompts/epoch_1.safetensors').absolute()}"),
        *(f"input={tmp_path / 'nuts'}", "accelerator=cpu", "num_workers=0", "output=elsewhere"),
    )
    assert again.code == 0, again.err
    assert "images that crane wrote: seen" in again.out + again.err
    assert "left out 2 files that are not images" in again.out + again.err
    assert "9 of 9 images scored" in again.out


def textile() -> dict[str, list[Path]]:
    """Photographs of a textile (MIT): as woven, and with defects in one place or everywhere."""
    package = pytest.importorskip("conformal_clip_data")
    folders = {"nominal": package.nominal_dir, "local": package.local_dir}
    folders["global"] = package.global_dir
    return {name: sorted(folder().glob("*.jpg"))[:8] for name, folder in folders.items()}


def solar_cells() -> dict[str, list[Path]]:
    """Photographs of solar cells (CC BY-NC-SA): without a defect, and surely with one."""
    package = pytest.importorskip("elpv_dataset")
    root = Path(package.__file__).parent / "data"
    rows = [line.split() for line in (root / "labels.csv").read_text().splitlines()]
    labels = {"ok": "0.0", "defective": "1.0"}
    return {
        name: [root / path for path, probability, _ in rows if probability == wanted][:8]
        for name, wanted in labels.items()
    }


@pytest.mark.parametrize(
    ("photographs", "normal"),
    [(solar_cells, "ok"), pytest.param(textile, "nominal", marks=pytest.mark.long)],
)
def test_real_photographs_as_folders_and_as_a_list(crane, tmp_path, tiny, photographs, normal):
    lines = ["path,label"]
    for label, images in photographs().items():
        (tmp_path / "own" / label).mkdir(parents=True)
        for image in images:
            shutil.copy(image, tmp_path / "own" / label)
            lines.append(f"{label}/{image.name},{label}")
    (tmp_path / "own" / "labels.csv").write_text("\n".join(lines))
    num_images, num_anomalous = len(lines) - 1, len(lines) - 9
    keys = [
        f"source.folder.root={tmp_path / 'own'}",
        f"targets.table.file={tmp_path / 'own/labels.csv'}",
    ]
    done = crane("train", "source=[folder]", "targets=[table]", *keys, *tiny, "run_dir=out")
    assert done.code == 0, done.err
    said = done.out + done.err
    assert f"8 normal ({normal}), {num_anomalous} anomalous" in said
    assert f"table: own: 8 normal (good in labels.csv), {num_anomalous} anomalous" in said
    assert "the source has no masks" in said
    done = crane(
        *("predict", "checkpoint=out/prompts/epoch_1.safetensors", f"input={tmp_path / 'own'}"),
        *(f"calibration.input={tmp_path / 'own' / normal}", "calibration.false_alarm_rate=0.2"),
        *("accelerator=cpu", "num_workers=0", "output=seen"),
    )
    assert done.code == 0, done.err
    assert f"{num_images} of {num_images} images scored" in done.out
