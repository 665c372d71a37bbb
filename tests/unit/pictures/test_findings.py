import csv
import json

import numpy as np

from crane.metrics import Curve
from crane.pictures import write_curves, write_scores
from crane.pictures.findings import NUM_POINTS
from crane.types import ANOMALOUS, NORMAL, Sample


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
