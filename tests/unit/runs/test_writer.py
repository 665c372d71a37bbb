from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from crane.errors import UsageError
from crane.pictures.overlays import ColourScale
from crane.pictures.panels import PanelStyle
from crane.pictures.writer import OverlayWriter
from crane.types import ANOMALOUS, NORMAL, Sample

STYLE = PanelStyle(ColourScale(0.0, 1.0, "inferno"), alpha=0.7, tile=40)


def make_writer(folder: Path, choose: str = "random", num: int = 2) -> OverlayWriter:
    return OverlayWriter(
        folder,
        title="Crane on test",
        style=STYLE,
        choose=choose,
        num_anomalous=num,
        num_normal=1,
        num_columns=2,
    )


@pytest.fixture
def samples(tmp_path: Path) -> list[tuple[Sample, float]]:
    made = []
    for place in range(24):
        label = ANOMALOUS if place % 2 else NORMAL
        defect = "hole" if label == ANOMALOUS else "good"
        class_name = ("nut", "metal plate")[place % 3 == 0]
        path = tmp_path / "data" / class_name / defect / f"{place:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (30 + place, 30), (place * 10, 0, 0)).save(path)
        made.append((Sample(path, label, class_name, defect), place / 24))
    return made


def feed(writer: OverlayWriter, samples: list[tuple[Sample, float]]) -> list[Path]:
    for sample, score in samples:
        mask = torch.zeros(20, 20, dtype=torch.int32)
        writer.add(sample, score, torch.full((20, 20), score), mask)
    return writer.close()


def test_keeps_the_wanted_number_of_each_class_and_label(tmp_path: Path, samples: list) -> None:
    gallery, *panels = feed(make_writer(tmp_path / "out"), samples)
    assert gallery == tmp_path / "out" / "gallery.png"
    assert Image.open(gallery).width > 200
    names = sorted(str(path.relative_to(tmp_path / "out").parent) for path in panels)
    assert names == ["metal_plate"] * 3 + ["nut"] * 3
    assert sum("_good_" in path.name for path in panels) == 2
    assert all(path.exists() for path in panels)


@pytest.mark.parametrize("choose", ["random", "best", "worst"])
def test_the_choice_does_not_depend_on_the_order(
    choose: str, tmp_path: Path, samples: list
) -> None:
    folder = tmp_path / "out"
    shuffled = [samples[place] for place in np.random.default_rng(3).permutation(len(samples))]
    pictures = []
    for order in (samples, samples[::-1], shuffled):
        paths = feed(make_writer(folder, choose), order)
        pictures.append({path: path.read_bytes() for path in paths})
    assert pictures[0] == pictures[1] == pictures[2]


def test_best_and_worst_are_chosen_by_score_and_label(tmp_path: Path, samples: list) -> None:
    nuts = [(s, score) for s, score in samples if s.class_name == "nut"]
    best = feed(make_writer(tmp_path / "best", "best", num=1), nuts)[1:]
    worst = feed(make_writer(tmp_path / "worst", "worst", num=1), nuts)[1:]
    normal = [s.image.stem for s, _ in nuts if s.label == NORMAL]
    anomalous = [s.image.stem for s, _ in nuts if s.label == ANOMALOUS]
    assert [path.name for path in best] == [
        f"00_good_{normal[0]}.png",
        f"01_hole_{anomalous[-1]}.png",
    ]
    assert [path.name for path in worst] == [
        f"00_good_{normal[-1]}.png",
        f"01_hole_{anomalous[0]}.png",
    ]


def test_nothing_seen_or_wanted_writes_nothing(tmp_path: Path, samples: list) -> None:
    assert make_writer(tmp_path / "out").close() == []
    normal = [(s, score) for s, score in samples if s.label == ANOMALOUS]
    assert feed(make_writer(tmp_path / "out", num=0), normal) == []
    assert not (tmp_path / "out").exists()


def test_unknown_choice(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"random, best, worst.*overlay\.choose"):
        make_writer(tmp_path, "nicest")
