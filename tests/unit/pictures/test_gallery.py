import logging
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from crane.errors import UsageError
from crane.pictures import (
    Gallery,
    OverlayOptions,
    PerClass,
    gallery,
    heat_map,
    read_gallery,
    write_gallery,
)
from crane.pictures.gallery import RANKS, Written
from crane.types import ANOMALOUS, NORMAL, Sample

Samples = Sequence[tuple[Sample, float]]
MakeOptions = Callable[..., OverlayOptions]


def make_image(path: Path, size: tuple[int, int] = (30, 30), red: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (red, 0, 0)).save(path)
    return path


@pytest.fixture
def samples(tmp_path: Path) -> Samples:
    """24 images of two classes and both labels; scores grow with their numbers."""
    made = []
    for place in range(24):
        label = ANOMALOUS if place % 2 else NORMAL
        defect = "hole" if label == ANOMALOUS else "good"
        class_name = ("nut", "metal plate")[place % 3 == 0]
        path = tmp_path / "data" / class_name / defect / f"{place:03d}.png"
        make_image(path, (30 + place, 30), place * 10)
        made.append((Sample(path, label, class_name, defect), place / 24))
    return made


@pytest.fixture
def nuts(samples: Samples) -> Samples:
    return [(sample, score) for sample, score in samples if sample.class_name == "nut"]


def fill(kept: Gallery, samples: Samples) -> Gallery:
    for sample, score in samples:
        mask = torch.zeros(20, 20, dtype=torch.int32)
        mask[5:9, 5:9] = sample.label
        kept.add(sample, score, torch.full((20, 20), score), mask)
    return kept


def write(kept: Gallery, folder: Path) -> Written:
    return kept.write(folder / "overlays" / kept.dataset, folder / "gallery" / kept.dataset)


def chosen(kept: Gallery) -> list[tuple[str, int, str, int]]:
    return [(s.class_name, s.label, s.image.stem, place) for s, _, place in kept.overlays()]


# Which samples are kept.


def test_classes_come_in_order_of_names_and_normal_samples_first(
    make_options: MakeOptions, samples: Samples
) -> None:
    options = make_options(choose="best", num_anomalous=2)
    assert chosen(fill(Gallery("parts", options), samples)) == [
        ("metal plate", NORMAL, "000", 0),
        ("metal plate", ANOMALOUS, "021", 0),
        ("metal plate", ANOMALOUS, "015", 1),
        ("nut", NORMAL, "002", 0),
        ("nut", ANOMALOUS, "023", 0),
        ("nut", ANOMALOUS, "019", 1),
    ]


@pytest.mark.parametrize("choose", RANKS)
def test_the_choice_does_not_depend_on_the_order(
    choose: str, make_options: MakeOptions, tmp_path: Path, samples: Samples
) -> None:
    options = make_options(choose=choose)
    shuffled = [samples[place] for place in np.random.default_rng(3).permutation(len(samples))]
    results = []
    for order in (samples, samples[::-1], shuffled):
        written = write(fill(Gallery("parts", options), order), tmp_path)
        files = {path: path.read_bytes() for path in written.overlays}
        results.append((files, written.pictures))
    assert results[0] == results[1] == results[2]


def test_best_and_worst_are_chosen_by_score_and_label(
    make_options: MakeOptions, tmp_path: Path, nuts: Samples
) -> None:
    normal = [s.image.stem for s, _ in nuts if s.label == NORMAL]
    anomalous = [s.image.stem for s, _ in nuts if s.label == ANOMALOUS]
    wanted = {"best": (normal[0], anomalous[-1]), "worst": (normal[-1], anomalous[0])}
    for choose, (good, hole) in wanted.items():
        options = make_options(choose=choose, num_anomalous=1)
        _, *panels = write(fill(Gallery("parts", options), nuts), tmp_path / choose).overlays
        assert [path.name for path in panels] == [f"00_good_{good}.png", f"01_hole_{hole}.png"]


def test_equal_scores_go_by_name(make_options: MakeOptions, samples: Samples) -> None:
    equal = [(sample, 0.5) for sample, _ in samples]
    one, two = (Gallery("parts", make_options(choose="best")) for _ in range(2))
    assert chosen(fill(one, equal)) == chosen(fill(two, equal[::-1]))


def test_a_random_choice_does_not_look_at_scores(
    make_options: MakeOptions, samples: Samples
) -> None:
    others = [(sample, 1 - score) for sample, score in samples]
    one, two = (Gallery("parts", make_options()) for _ in range(2))
    assert chosen(fill(one, samples)) == chosen(fill(two, others))


def test_what_is_not_kept_is_not_opened(make_options: MakeOptions, tmp_path: Path) -> None:
    options = make_options(num_anomalous=0, gallery=PerClass(0, 0))
    kept = Gallery("parts", options)
    kept.add(Sample(tmp_path / "gone.png", ANOMALOUS, "nut", "bent"), 0.9, torch.zeros(2, 2))
    assert kept.overlays() == []
    assert write(kept, tmp_path) == Written([], [])
    assert not list(tmp_path.iterdir())


def test_16_bit_images_are_shown_as_the_model_sees_them(
    make_options: MakeOptions, tmp_path: Path
) -> None:
    Image.fromarray(np.full((30, 30), 4095, np.uint16)).save(tmp_path / "deep.png")
    sample = Sample(tmp_path / "deep.png", ANOMALOUS, "nut", "bent")
    for white_level, wanted in ((None, 16), (4095, 255)):
        kept = Gallery("parts", make_options(), white_level=white_level)
        kept.add(sample, 0.5, torch.zeros(20, 20))
        ((_, panel, _),) = kept.overlays()
        assert int(panel.image.max()) == wanted


def test_what_is_kept_is_small(make_options: MakeOptions, samples: Samples) -> None:
    kept = Gallery("parts", make_options(tile=15))
    mask = torch.zeros(40, 60, dtype=torch.int32)
    kept.add(samples[1][0], 0.5, torch.zeros(40, 60), mask)
    ((_, panel, _),) = kept.overlays()
    assert panel.image.shape == (15, 15, 3)
    assert panel.map.shape == panel.mask.shape == (15, 15)


# What is written.


def test_each_class_has_a_folder_of_panels(
    make_options: MakeOptions, tmp_path: Path, samples: Samples
) -> None:
    top, *panels = write(fill(Gallery("parts", make_options()), samples), tmp_path).overlays
    folder = tmp_path / "overlays" / "parts"
    assert top == folder / "gallery.png"
    assert Image.open(top).width > 200
    names = sorted(str(path.relative_to(folder).parent) for path in panels)
    assert names == ["metal_plate"] * 3 + ["nut"] * 3
    assert sum("_good_" in path.name for path in panels) == 2
    assert all(path.exists() for path in panels)


def test_each_image_is_opened_once_and_each_panel_drawn_once(
    make_options: MakeOptions, tmp_path: Path, nuts: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although an image may be among the best, the random ones and the overlays at once."""
    opened, drawn, shrunk = Counter(), Counter(), Counter()

    def counting(name: str, counter: Counter, key: Callable) -> None:
        function = getattr(gallery, name)

        def counted(*args: object, **kwargs: object) -> object:
            counter[key(*args)] += 1
            return function(*args, **kwargs)

        monkeypatch.setattr(gallery, name, counted)

    counting("read_rgb", opened, lambda path, box: path)
    counting("make_panel", shrunk, lambda image, *_: image.width)
    counting("draw_tiles", drawn, lambda panel, _: id(panel))
    options = make_options(choose="best", num_anomalous=8, num_normal=8, gallery=PerClass(8, 8))
    written = write(fill(Gallery("parts", options), nuts), tmp_path)
    assert len(written.overlays) == 1 + len(nuts)
    assert len(written.pictures) == 3 * len(nuts)
    assert len(opened) == len(shrunk) == len(drawn) == len(nuts)
    assert {*opened.values(), *shrunk.values(), *drawn.values()} == {1}


def test_nothing_seen_or_wanted_writes_nothing(
    make_options: MakeOptions, tmp_path: Path, samples: Samples
) -> None:
    assert write(Gallery("parts", make_options()), tmp_path / "out") == Written([], [])
    options = make_options(num_anomalous=0, gallery=PerClass(0, 0))
    anomalous = [(s, score) for s, score in samples if s.label == ANOMALOUS]
    assert write(fill(Gallery("parts", options), anomalous), tmp_path / "out") == Written([], [])
    assert not (tmp_path / "out").exists()


def test_any_class_name_has_a_folder_of_its_own(make_options: MakeOptions, tmp_path: Path) -> None:
    """`..` is no way out of the folder, and names that differ only in odd characters are two."""
    names = ["..", ".", "a b", "a_b", "A_b", "x" * 300, "x" * 299 + "y", "a/b"]
    image = make_image(tmp_path / "data" / f"{'n' * 240}.png")
    kept = Gallery("parts", make_options())
    for name in names:
        kept.add(Sample(image, NORMAL, name, "good"), 0.5, torch.zeros(20, 20))
    written = write(kept, tmp_path / "run")
    top, *panels = written.overlays
    assert len({str(path.parent).casefold() for path in panels}) == len(names)
    assert {path.parent.parent for path in panels} == {top.parent}
    assert all(path.is_file() for path in panels)
    assert {p.name for p in tmp_path.iterdir()} == {"data", "run"}


def test_a_picture_that_cannot_be_written_is_left_out_with_a_warning(
    make_options: MakeOptions, tmp_path: Path, nuts: Samples, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = tmp_path / "overlays" / "parts" / "nut"
    blocked.parent.mkdir(parents=True)
    blocked.write_text("a file where the folder belongs")
    (tmp_path / "gallery").write_text("and here")
    with caplog.at_level(logging.WARNING):
        written = write(fill(Gallery("parts", make_options()), nuts), tmp_path)
    assert written == Written([blocked.parent / "gallery.png"], [])
    assert f"cannot write the picture {blocked}" in caplog.text


def test_an_image_that_is_gone_is_left_out_with_a_warning(
    make_options: MakeOptions, tmp_path: Path, nuts: Samples, caplog: pytest.LogCaptureFixture
) -> None:
    gone = nuts[0][0].image
    gone.unlink()
    with caplog.at_level(logging.WARNING):
        kept = fill(Gallery("parts", make_options(num_anomalous=20, num_normal=20)), nuts)
    assert f"no picture of {gone}" in caplog.text
    assert {s.image for s, *_ in kept.overlays()} == {s.image for s, _ in nuts} - {gone}


# Pictures for reports.


@pytest.fixture
def kept(make_options: MakeOptions, tmp_path: Path) -> Gallery:
    """Six images of one class, whose scores grow with their numbers."""
    kept = Gallery("parts", make_options())
    for number in range(6):
        path = make_image(tmp_path / "data" / f"{number}.png", (50, 30), 40 * number)
        label = number % 2
        mask = torch.zeros(30, 50, dtype=torch.int32)
        mask[10:20, 10:20] = label
        sample = Sample(path, label, "nut", "bent" if label else "good")
        kept.add(sample, number / 6, torch.full((30, 50), number / 6), mask)
    return kept


def test_the_best_the_worst_and_a_random_image_of_each_label_are_kept(
    kept: Gallery, tmp_path: Path
) -> None:
    pictures = write(kept, tmp_path).pictures
    found = {(p.choice, p.label): p.name for p in pictures}
    assert len(pictures) == 6
    assert found["best", NORMAL] == "0.png"
    assert found["worst", NORMAL] == "4.png"
    assert found["best", ANOMALOUS] == "5.png"
    assert found["worst", ANOMALOUS] == "1.png"
    assert found["random", NORMAL] in ("0.png", "2.png", "4.png")


def test_an_image_chosen_twice_is_one_file(kept: Gallery, tmp_path: Path) -> None:
    pictures = write(kept, tmp_path).pictures
    files = {picture.name: picture.file for picture in pictures}
    assert {(picture.name, picture.file) for picture in pictures} == set(files.items())
    assert len(list((tmp_path / "gallery" / "parts").iterdir())) == len(files)


def test_a_picture_is_image_overlay_and_map_in_the_colours_of_the_scale(
    kept: Gallery, make_options: MakeOptions, tmp_path: Path
) -> None:
    pictures = write(kept, tmp_path).pictures
    worst = next(p for p in pictures if (p.choice, p.label) == ("worst", NORMAL))
    with Image.open(tmp_path / "gallery" / worst.file) as image:
        strip = np.asarray(image.convert("RGB")).astype(int)
    assert strip.shape == (24, 120, 3)
    colour = heat_map(np.full((1, 1), 4 / 6, np.float32), make_options().scale)[0, 0]
    assert np.abs(strip[12, 100] - colour).max() < 12  # WebP is lossy
    assert np.abs(strip[12, 20] - (160, 0, 0)).max() < 12


def test_a_gallery_is_read_as_it_was_written(
    kept: Gallery, make_options: MakeOptions, tmp_path: Path
) -> None:
    pictures = write(kept, tmp_path).pictures
    write_gallery(pictures, make_options().scale, tmp_path / "gallery")
    scale, entries = read_gallery(tmp_path / "gallery")
    assert scale == {"vmin": 0.0, "vmax": 1.0, "colormap": "inferno"}
    assert entries == pictures
    assert write(kept, tmp_path) == Written([], []), "what was kept is forgotten"


@pytest.mark.parametrize(
    "text",
    [
        *("[]", "{half", '{"scale": {}, "pictures": []}'),
        '{"scale": {"vmin": 0, "vmax": 1, "colormap": "inferno"}, "pictures": [{"odd": 1}]}',
        '{"scale": {"vmin": 0, "vmax": 1, "colormap": "infer"}, "pictures": []}',
        '{"scale": {"vmin": 0, "vmax": 1, "colormap": "inferno"}, "pictures": [{"dataset": "a",'
        '"class_name": "b", "defect": "c", "label": 0, "score": NaN, "name": "d", "choice": "best",'
        '"file": "e"}]}',
    ],
)
def test_another_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "gallery.json").write_text(text)
    with pytest.raises(UsageError, match=r"cannot read the gallery .*gallery\.json"):
        read_gallery(tmp_path)
