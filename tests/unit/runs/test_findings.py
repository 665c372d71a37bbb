import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image

from crane.errors import UsageError
from crane.metrics import Curve
from crane.pictures import (
    ColourScale,
    GalleryKeeper,
    PanelStyle,
    heat_map,
    read_gallery,
    write_curves,
    write_gallery,
    write_scores,
)
from crane.pictures.findings import NUM_POINTS
from crane.types import ANOMALOUS, NORMAL, Sample

STYLE = PanelStyle(ColourScale(0.0, 1.0, "inferno"), alpha=0.7, tile=40)


def line(num_points):
    x = np.linspace(0, 1, num_points)
    return Curve("false_positive_rate", "recall", x[::-1], x, x**2)


def test_curves_are_thinned_named_and_left_out_where_there_are_none(tmp_path):
    curves = {"visa": {"pro": [line(5000), line(0)], "image_roc": [line(3), line(2)]}}
    path = write_curves(curves, {"visa": ("pcb", "fryum")}, tmp_path / "curves.json")
    content = json.loads(path.read_text())
    assert set(content["visa"]["pro"]) == {"pcb"}
    assert set(content["visa"]["image_roc"]) == {"pcb", "fryum"}
    pro = content["visa"]["pro"]["pcb"]
    assert (pro["x_name"], pro["y_name"]) == ("false_positive_rate", "recall")
    assert 0.8 * NUM_POINTS <= len(pro["x"]) == len(pro["y"]) <= NUM_POINTS
    assert (pro["x"][0], pro["x"][-1]) == (0, 1)
    assert np.allclose(np.square(pro["x"]), pro["y"], atol=2e-5)


def test_scores_have_a_row_an_image_and_name_crops(tmp_path):
    samples = [
        Sample(tmp_path / "a.png", NORMAL, "nut", "good"),
        Sample(tmp_path / "b.png", ANOMALOUS, "nut", "bent", box=(0, 1, 2, 3)),
        Sample(tmp_path / "c.png", NORMAL, "nut", "good"),
    ]
    found = [("parts", samples, np.array([1, 0]), np.array([0.75, 1 / 3]))]
    with write_scores(found, tmp_path / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["score"] for row in rows] == ["0.75", "0.333333"]
    assert rows[0] == {
        **{"dataset": "parts", "class": "nut", "defect": "bent", "label": "1", "score": "0.75"},
        "image": f"{tmp_path / 'b.png'} (0, 1, 2, 3)",
    }


@pytest.fixture
def kept(tmp_path):
    """A gallery of six images of one class, whose scores grow with their numbers."""
    keeper = GalleryKeeper("parts", style=STYLE, num_anomalous=1, num_normal=1)
    for number in range(6):
        path = tmp_path / f"{number}.png"
        Image.new("RGB", (50, 30), (40 * number, 0, 0)).save(path)
        label = number % 2
        mask = torch.zeros(30, 50, dtype=torch.int32)
        mask[10:20, 10:20] = label
        sample = Sample(path, label, "nut", "bent" if label else "good")
        keeper.add(sample, number / 6, torch.full((30, 50), number / 6), mask)
    return keeper


def test_the_best_the_worst_and_a_random_image_of_each_label_are_kept(kept, tmp_path):
    pictures = kept.close(tmp_path / "gallery")
    chosen = {(p.choice, p.label): p.name for p in pictures}
    assert len(pictures) == 6
    assert chosen["best", NORMAL] == "0.png"
    assert chosen["worst", NORMAL] == "4.png"
    assert chosen["best", ANOMALOUS] == "5.png"
    assert chosen["worst", ANOMALOUS] == "1.png"
    assert chosen["random", NORMAL] in ("0.png", "2.png", "4.png")


def test_an_image_chosen_twice_is_one_file(kept, tmp_path):
    pictures = kept.close(tmp_path / "gallery")
    files = {picture.name: picture.file for picture in pictures}
    assert {(picture.name, picture.file) for picture in pictures} == set(files.items())
    assert len(list((tmp_path / "gallery" / "parts").iterdir())) == len(files)


def test_a_picture_is_image_overlay_and_map_in_the_scales_colours(kept, tmp_path):
    pictures = kept.close(tmp_path / "gallery")
    worst = next(p for p in pictures if (p.choice, p.label) == ("worst", NORMAL))
    strip = np.asarray(Image.open(tmp_path / "gallery" / worst.file).convert("RGB")).astype(int)
    assert strip.shape == (24, 120, 3)
    colour = heat_map(np.full((1, 1), 4 / 6, np.float32), STYLE.scale)[0, 0]
    assert np.abs(strip[12, 100] - colour).max() < 12  # WebP is lossy
    assert np.abs(strip[12, 20] - (160, 0, 0)).max() < 12


def test_a_gallery_is_read_as_it_was_written(kept, tmp_path):
    pictures = kept.close(tmp_path / "gallery")
    write_gallery(pictures, STYLE, tmp_path / "gallery")
    scale, entries = read_gallery(tmp_path / "gallery")
    assert scale == {"vmin": 0.0, "vmax": 1.0, "colormap": "inferno"}
    assert entries == pictures
    assert kept.close(tmp_path / "gallery") == []  # what was kept is forgotten


@pytest.mark.parametrize("text", ["[]", "{half", '{"scale": {}, "pictures": [{"odd": 1}]}'])
def test_another_file_is_refused(tmp_path, text):
    (tmp_path / "gallery.json").write_text(text)
    with pytest.raises(UsageError, match=r"a gallery\.json that a test wrote"):
        read_gallery(tmp_path)
