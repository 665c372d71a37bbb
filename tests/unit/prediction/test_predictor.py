import csv
import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from crane.data.images import image_to_tensor, read_rgb
from crane.errors import UsageError
from crane.prediction.calibration import Threshold
from crane.prediction.inputs import find_images
from crane.prediction.loading import LoadOptions
from crane.prediction.outputs import OutputOptions
from crane.prediction.predictor import (
    MAX_PENDING,
    PredictSummary,
    calibrate_on,
    predict,
    score_images,
)
from crane.prediction.scores import read_scores
from crane.reporting import ColourScale, heat_map, overlay, read_map, resize_map
from crane.types import Prediction

SIZE = 24
SCALE = ColourScale(vmin=0.0, vmax=1.0, colormap="inferno")
CPU = torch.device("cpu")


def brightness(images: Float[Tensor, "B 3 S S"]) -> Prediction:
    """A detector whose answers can be computed by hand."""
    map = images.mean(dim=1)
    return Prediction(score=map.mean(dim=(1, 2)), map=map)


def loading(**changes: object) -> LoadOptions:
    values = {"image_size": SIZE, "batch_size": 3, "num_workers": 0, "on_error": "skip"}
    return LoadOptions(**{**values, **changes})  # type: ignore[arg-type]


def outputs(maps: str = "png", overlays: str = "png") -> OutputOptions:
    return OutputOptions(maps=maps, overlays=overlays, scale=SCALE, alpha=0.7)


def run(
    spec: object,
    output: Path,
    *,
    threshold: Threshold | None = None,
    pictures: OutputOptions | None = None,
    **changes: object,
) -> PredictSummary:
    return predict(
        brightness,
        find_images(spec),  # type: ignore[arg-type]
        output=output,
        loading=loading(**changes),
        outputs=pictures or outputs(),
        threshold=threshold,
        device=CPU,
        show_progress=False,
    )


def write_grey(path: Path, value: int, size: tuple[int, int] = (30, 20)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, value, value)).save(path)
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Images of all sizes and modes."""
    folder = tmp_path / "photos"
    write_grey(folder / "left" / "1.png", 51, (30, 20))
    write_grey(folder / "right" / "1.png", 102, (1, 1))
    write_grey(folder / "right" / "1.jpg", 153, (70, 90))
    gradient = np.linspace(0, 65535, 40 * 50).reshape(40, 50)
    Image.fromarray(gradient.astype(np.uint16)).save(folder / "deep.png")
    Image.new("L", (25, 35), 100).save(folder / "grey.png")
    Image.new("RGBA", (25, 35), (9, 9, 9, 128)).save(folder / "alpha.png")
    Image.new("P", (25, 35), 3).save(folder / "palette.png")
    Image.new("CMYK", (25, 35), (9, 99, 9, 9)).save(folder / "cmyk.jpg")
    return folder


def test_every_size_and_mode_gets_a_score_a_map_and_an_overlay_of_its_own_size(
    photos: Path, tmp_path: Path
) -> None:
    summary = run(photos, tmp_path / "out")
    assert (summary.num_images, summary.num_scored, summary.skipped) == (8, 8, ())
    rows = list(read_scores(summary.csv))
    assert [row["image"] for row in rows] == sorted(str(row["image"]) for row in rows)
    for row in rows:
        image = read_rgb(str(row["image"]))
        wanted = brightness(image_to_tensor(image, SIZE)[None])
        assert row["score"] == wanted.score.item()
        assert (row["width"], row["height"]) == image.size
        assert row["error"] is None
        map = read_map(tmp_path / "out" / str(row["map"]))
        own = resize_map(wanted.map[0].numpy(), image.height, image.width)
        np.testing.assert_allclose(map, own, atol=1e-5)
        shown = np.asarray(Image.open(tmp_path / "out" / str(row["overlay"])))
        assert np.array_equal(shown, overlay(np.asarray(image), own, scale=SCALE, alpha=0.7))


def test_images_of_one_name_do_not_overwrite_each_other(photos: Path, tmp_path: Path) -> None:
    run(photos, tmp_path / "out", pictures=outputs("npy", "none"))
    values = {
        name: read_map(tmp_path / "out" / "maps" / f"{name}.npy").mean()
        for name in ("left/1.png", "right/1.png", "right/1.jpg")
    }
    assert values == pytest.approx(
        {"left/1.png": 0.2, "right/1.png": 0.4, "right/1.jpg": 0.6}, abs=0.01
    )


def test_exif_rotation_turns_map_and_overlay_as_viewers_turn_the_image(tmp_path: Path) -> None:
    pixels = np.zeros((20, 60, 3), dtype=np.uint8)
    pixels[:, :15] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise: left becomes top
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    run(tmp_path / "a.png", tmp_path / "out")
    map = read_map(tmp_path / "out/maps/a.png.png")
    assert map.shape == (60, 20)
    assert map[:10].min() > 0.9
    assert map[20:].max() < 0.1
    assert Image.open(tmp_path / "out/overlays/a.png.png").size == (20, 60)


def test_colours_do_not_depend_on_the_image(tmp_path: Path) -> None:
    for name, value in (("dim", 60), ("bright", 220)):
        pixels = np.full((SIZE, SIZE, 3), value, dtype=np.uint8)
        pixels[:, : SIZE // 2] = 140
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    run([tmp_path / "dim.png", tmp_path / "bright.png"], tmp_path / "out")
    dim, bright = (
        np.asarray(Image.open(tmp_path / f"out/overlays/{name}.png.png"))
        for name in ("dim", "bright")
    )
    assert np.array_equal(dim[4, 3], bright[4, 3])
    assert not np.array_equal(dim[4, 20], bright[4, 20])
    scale = np.asarray(Image.open(tmp_path / "out/overlays_scale.png"))
    ends = heat_map(np.float32([[0, 1]]), SCALE)[0]
    row = scale[scale.shape[0] // 2 - 2]
    assert np.array_equal(row[[0, -1]], ends)


def test_unreadable_files_are_skipped_and_reported_everywhere(
    photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cut = (photos / "right" / "1.jpg").read_bytes()[:300]
    (photos / "cut.jpg").write_bytes(cut)
    (photos / "text.png").write_text("not an image")
    with caplog.at_level(logging.WARNING):
        summary = run(photos, tmp_path / "out", threshold=Threshold(0.5))
    assert (summary.num_images, summary.num_scored) == (10, 8)
    bad = [str(photos / "cut.jpg"), str(photos / "text.png")]
    assert [image for image, _ in summary.skipped] == bad
    assert "2 images could not be read" in caplog.text
    assert all(path in caplog.text for path in bad)
    rows = {row["image"]: row for row in read_scores(summary.csv)}
    for path in bad:
        assert rows[path]["score"] is None
        assert rows[path]["anomalous"] is None
        assert rows[path]["error"]
    content = json.loads(summary.json.read_text())
    assert content["num_skipped"] == 2
    assert [one["image"] for one in content["skipped"]] == bad


def test_or_they_are_an_error_that_names_the_file(photos: Path, tmp_path: Path) -> None:
    (photos / "text.png").write_text("not an image")
    with pytest.raises(UsageError, match=r"text\.png.*on_error"):
        run(photos, tmp_path / "out", on_error="fail")
    assert not (tmp_path / "out" / "scores.json").exists()


def test_no_readable_image_at_all_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("not an image")
    with pytest.raises(UsageError, match="at least one image that can be read"):
        run(tmp_path / "text.png", tmp_path / "out")


def test_csv_and_json_say_the_same(photos: Path, tmp_path: Path) -> None:
    (photos / 'odd, "name".png').write_text("not an image\n")
    threshold = Threshold(0.4, false_alarm_rate=0.05, num_normals=50)
    summary = run(photos, tmp_path / "out", threshold=threshold)
    content = json.loads(summary.json.read_text())
    assert content["scores"] == list(read_scores(summary.csv))
    assert content["num_images"] == len(content["scores"]) == 9
    assert content["num_scored"] + content["num_skipped"] == content["num_images"]
    assert content["threshold"] == {"value": 0.4, "false_alarm_rate": 0.05, "num_normals": 50}
    called = [row["anomalous"] for row in content["scores"] if row["score"] is not None]
    wanted = [int(row["score"] >= 0.4) for row in content["scores"] if row["score"] is not None]
    assert called == wanted
    assert 0 < sum(wanted) < len(wanted)
    assert content["num_anomalous"] == summary.num_anomalous == sum(wanted)


def test_without_threshold_nothing_is_decided(photos: Path, tmp_path: Path) -> None:
    summary = run(photos, tmp_path / "out", pictures=outputs("none", "none"))
    with summary.csv.open() as file:
        assert next(csv.reader(file)) == ["image", "score", "height", "width", "error"]
    assert summary.num_anomalous is None
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "scores.csv",
        "scores.json",
    ]


@pytest.mark.parametrize(("batch_size", "num_workers"), [(1, 0), (100, 0), (3, 2)])
def test_batches_and_workers_change_nothing(
    batch_size: int, num_workers: int, photos: Path, tmp_path: Path
) -> None:
    (photos / "bad.png").write_text("not an image")
    one = run(photos, tmp_path / "one")
    two = run(photos, tmp_path / "two", batch_size=batch_size, num_workers=num_workers)
    assert one.csv.read_text() == two.csv.read_text()
    for path in (tmp_path / "one" / "maps").rglob("*.png"):
        other = tmp_path / "two" / path.relative_to(tmp_path / "one")
        assert path.read_bytes() == other.read_bytes()


def test_rows_are_on_disk_while_prediction_goes_on(tmp_path: Path) -> None:
    for place in range(60):
        write_grey(tmp_path / "photos" / f"{place:02d}.png", place, (8, 8))
    written = []

    def watching(images: Tensor) -> Prediction:
        written.append(len((tmp_path / "out" / "scores.csv").read_text().splitlines()) - 1)
        return brightness(images)

    predict(
        watching,
        find_images(tmp_path / "photos"),
        output=tmp_path / "out",
        loading=loading(batch_size=4),
        outputs=outputs("png", "none"),
        threshold=None,
        device=CPU,
        show_progress=False,
    )
    assert all(4 * batch - rows <= MAX_PENDING + 4 for batch, rows in enumerate(written))


def test_scores_that_are_not_finite_name_the_image(tmp_path: Path) -> None:
    write_grey(tmp_path / "fine.png", 10)
    write_grey(tmp_path / "overflow.png", 200)

    def broken(images: Tensor) -> Prediction:
        said = brightness(images)
        return Prediction(said.score, torch.where(said.map > 0.5, torch.nan, said.map))

    with pytest.raises(UsageError, match=r"NaN or infinity for .*overflow\.png"):
        list(score_images(broken, find_images(tmp_path), loading(), device=CPU))


def test_calibration_on_a_folder_of_normal_images(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for value in range(40):
        write_grey(tmp_path / "normals" / f"{value:02d}.png", value)
    (tmp_path / "normals" / "bad.png").write_text("not an image")
    threshold = calibrate_on(
        brightness, find_images(tmp_path / "normals"), 0.1, loading(), device=CPU,
        show_progress=False,
    )  # fmt: skip
    assert threshold.num_normals == 40
    assert "bad.png" in caplog.text
    # Rank ceil(41 * 0.9) = 37 is grey value 36.
    write_grey(tmp_path / "new" / "36.png", 36)
    write_grey(tmp_path / "new" / "37.png", 37)
    summary = run(tmp_path / "new", tmp_path / "out", threshold=threshold)
    assert [row["anomalous"] for row in read_scores(summary.csv)] == [0, 1]


def test_mistaken_options_name_their_keys() -> None:
    for key, value in (("batch_size", 0), ("image_size", 0), ("num_workers", -1)):
        with pytest.raises(UsageError, match=f"change {key}"):
            loading(**{key: value})
    with pytest.raises(UsageError, match="change on_error"):
        loading(on_error="ignore")
    with pytest.raises(UsageError, match=r"png, npy or none.*change maps"):
        outputs(maps="tif")
    with pytest.raises(UsageError, match=r"jpg, png or none.*change overlays"):
        outputs(overlays="gif")
