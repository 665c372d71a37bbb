import csv
import errno
import json
import logging
import math
import os
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from crane.data.images import image_to_tensor, read_rgb
from crane.errors import UsageError
from crane.pictures import ColourScale, heat_map, overlay, read_map, resize_map
from crane.pictures.maps import stored_map
from crane.pictures.overlays import contoured
from crane.prediction import outputs as outputs_module
from crane.prediction import write_predictions
from crane.prediction.calibration import Calibration, Threshold
from crane.prediction.image_scoring import Detector, LoadOptions, score_images
from crane.prediction.inputs import find_images
from crane.prediction.outputs import OutputOptions
from crane.prediction.table import MAX_SHOWN, PredictSummary, ScoreTable, read_scores
from crane.processes import ALONE, Launched
from crane.runs import processor_name
from crane.samples import label_regions
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
    return LoadOptions(**{**values, **changes})


def outputs(**changes: object) -> OutputOptions:
    values = {"scores": "csv", "part_size": 4, "maps": "png", "overlays": "png"}
    return OutputOptions(**{**values, "scale": SCALE, "alpha": 0.7, **changes})


def run(
    spec: object,
    output: Path,
    *,
    detector: Detector = brightness,
    made_of: dict[str, object] | None = None,
    threshold: Threshold | Calibration | None = None,
    written: OutputOptions | None = None,
    share: Launched = ALONE,
    overwrite: bool = False,
    **changes: object,
) -> PredictSummary:
    return write_predictions(
        lambda: detector,
        find_images(spec),
        made_of=made_of or {},
        output=output,
        overwrite=overwrite,
        share=share,
        loading=loading(**changes),
        outputs=written or outputs(),
        threshold=threshold,
        device=CPU,
        show_progress=False,
    )


def rows_of(summary: PredictSummary) -> list[dict]:
    """The table of a prediction written as CSV."""
    assert summary.json is not None
    return list(read_scores(summary.scores))


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
    assert (summary.num_images, summary.num_scored, summary.num_missing) == (8, 8, 0)
    assert summary.skipped == []
    rows = rows_of(summary)
    assert [row["image"] for row in rows] == sorted(str(row["image"]) for row in rows)
    for row in rows:
        image = read_rgb(photos / str(row["image"]))
        wanted = brightness(image_to_tensor(image, SIZE)[None])
        assert row["score"] == wanted.score.item()
        assert (row["width"], row["height"]) == image.size
        assert row["error"] is None
        map = read_map(tmp_path / "out" / str(row["map"]))
        own = resize_map(wanted.map[0].numpy(), image.height, image.width)
        np.testing.assert_allclose(map, own, atol=1e-5)
        own = stored_map(own)
        blended, mask = overlay(np.asarray(image), own, scale=SCALE, alpha=0.7), own >= 0.5
        assert row["regions"] == label_regions(mask).max()
        shown = top_of(Image.open(tmp_path / "out" / str(row["overlay"])), image.size)
        assert np.array_equal(shown, contoured(blended, mask))


def top_of(overlay: Image.Image, size: tuple[int, int]) -> np.ndarray:
    """The picture above the strip with the verdict."""
    left = (overlay.width - size[0]) // 2
    return np.asarray(overlay.crop((left, 0, left + size[0], size[1])))


def test_images_of_one_name_do_not_overwrite_each_other(photos: Path, tmp_path: Path) -> None:
    run(photos, tmp_path / "out", written=outputs(maps="npy", overlays="none"))
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
    (row,) = rows_of(run(tmp_path / "a.png", tmp_path / "b", written=outputs(maps="none")))
    assert (row["height"], row["width"]) == (60, 20)
    upper = top_of(Image.open(tmp_path / "out/overlays/a.png.png"), (20, 60))
    assert upper[:10].mean() > 200
    assert upper[25:].mean() < 40


def test_colours_do_not_depend_on_the_image(tmp_path: Path) -> None:
    for name, value in (("dim", 60), ("bright", 220)):
        pixels = np.full((SIZE, SIZE, 3), value, dtype=np.uint8)
        pixels[:, : SIZE // 2] = 140
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    run([tmp_path / "dim.png", tmp_path / "bright.png"], tmp_path / "out")
    dim, bright = (
        top_of(Image.open(tmp_path / f"out/overlays/{name}.png.png"), (SIZE, SIZE))
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
    bad = ["cut.jpg", "text.png"]
    assert [image for image, _ in summary.skipped] == bad
    assert "2 images could not be read" in caplog.text
    assert all(path in caplog.text for path in bad)
    rows = {row["image"]: row for row in rows_of(summary)}
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


def test_an_image_whose_picture_cannot_be_written_keeps_its_score(
    photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """JPEG takes no side above 65,500 pixels, and no file can be where a folder is."""
    long = write_grey(photos / "scan.png", 51, (66_000, 2))
    blocked = write_grey(photos / "x.png", 51)
    write_grey(photos / "x.png.jpg" / "inner.png", 51)
    rows = {photos / row["image"]: row for row in rows_of(run(photos, tmp_path / "out"))}
    assert rows[long]["error"] is None  # PNG takes it
    written = outputs(maps="none", overlays="jpg")
    summary = run(photos, tmp_path / "b", written=written)
    rows = {photos / row["image"]: row for row in rows_of(summary)}
    assert rows[long]["score"] is not None
    assert rows[long]["overlay"] is None
    assert rows[long]["error"].startswith("no overlay: ")
    assert rows[photos / "grey.png"]["overlay"] is not None
    assert "no overlay of" in caplog.text
    both = [rows[blocked], rows[photos / "x.png.jpg" / "inner.png"]]
    assert all(row["score"] is not None for row in both)
    assert sorted(row["overlay"] is None for row in both) == [False, True]
    with pytest.raises(
        UsageError, match=r"cannot write the overlay of .*for overlays, or on_error"
    ):
        run(photos, tmp_path / "c", written=written, on_error="fail")


def test_pictures_of_images_with_very_long_names_are_written(tmp_path: Path) -> None:
    """Their names have no room for another ending; cut ones stay distinct."""
    long = [write_grey(tmp_path / "photos" / f"{'n' * 249}{end}.png", 51) for end in "ab"]
    rows = rows_of(run(tmp_path / "photos", tmp_path / "out"))
    assert [row["image"] for row in rows] == [path.name for path in long]
    for kind in ("map", "overlay"):
        files = {tmp_path / "out" / str(row[kind]) for row in rows}
        assert len(files) == 2
        assert all(file.is_file() for file in files)


def test_a_full_disk_is_nobodys_image(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(outputs_module, "save_map", full)
    with pytest.raises(UsageError, match=r"cannot write to .*out: No space left .*resumes"):
        run(photos, tmp_path / "out")
    assert not list((tmp_path / "out").glob("scores/*"))


def test_an_output_that_is_a_file_is_refused(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(UsageError, match=r"cannot write to .*out: .*choose another output"):
        run(photos, tmp_path / "out")


def test_each_image_is_opened_once_and_each_part_read_once(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Overlays open their image again: keeping it would need more memory."""
    opened, read = [], []
    from crane.prediction import image_scoring

    def counting_open(path: str, **how: object) -> Image.Image:
        opened.append(path)
        return read_rgb(path, **how)

    read_part = ScoreTable.read
    monkeypatch.setattr(image_scoring, "read_rgb", counting_open)
    monkeypatch.setattr(
        ScoreTable, "read", lambda table, n, names: read.append(n) or read_part(table, n, names)
    )
    run(photos, tmp_path / "out")
    assert sorted(opened) == sorted(find_images(photos))
    assert read == [0, 1]


def test_no_readable_image_at_all_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("not an image")
    with pytest.raises(UsageError, match=r"input: none of the images can be read; .*text\.png"):
        run(tmp_path / "text.png", tmp_path / "out")


def test_csv_and_json_say_the_same(photos: Path, tmp_path: Path) -> None:
    (photos / 'odd, "name".png').write_text("not an image\n")
    threshold = Threshold(0.4, false_alarm_rate=0.05, num_normals=50)
    summary = run(photos, tmp_path / "out", threshold=threshold)
    content = json.loads(summary.json.read_text())
    assert content["scores"] == rows_of(summary)
    assert content["num_images"] == len(content["scores"]) == 9
    assert content["num_scored"] + content["num_skipped"] == content["num_images"]
    assert content["threshold"] == asdict(threshold)
    assert content["root"] == str(photos)
    assert content["threads"] == torch.get_num_threads()
    assert content["processor"] == processor_name()
    called = [row["anomalous"] for row in content["scores"] if row["score"] is not None]
    wanted = [int(row["score"] >= 0.4) for row in content["scores"] if row["score"] is not None]
    assert called == wanted
    assert 0 < sum(wanted) < len(wanted)
    assert content["num_anomalous"] == summary.num_anomalous == sum(wanted)


def test_without_threshold_nothing_is_decided(photos: Path, tmp_path: Path) -> None:
    summary = run(photos, tmp_path / "out", written=outputs(maps="none", overlays="none"))
    with summary.scores.open() as file:
        assert next(csv.reader(file)) == ["image", "score", "height", "width", "error"]
    assert summary.num_anomalous is None
    assert sorted(p.name for p in (tmp_path / "out").iterdir() if p.name != ".lock") == [
        "predictions.html",
        "scores",
        "scores.csv",
        "scores.json",
        "settings.json",
    ]


@pytest.mark.parametrize(("batch_size", "num_workers"), [(1, 0), (100, 0), (3, 2)])
def test_batches_and_workers_change_nothing(
    batch_size: int, num_workers: int, photos: Path, tmp_path: Path
) -> None:
    (photos / "bad.png").write_text("not an image")
    one = run(photos, tmp_path / "one")
    two = run(photos, tmp_path / "two", batch_size=batch_size, num_workers=num_workers)
    assert one.scores.read_text() == two.scores.read_text()
    for path in (tmp_path / "one" / "maps").rglob("*.png"):
        other = tmp_path / "two" / path.relative_to(tmp_path / "one")
        assert path.read_bytes() == other.read_bytes()


def test_scores_that_are_not_finite_name_the_image(tmp_path: Path) -> None:
    write_grey(tmp_path / "fine.png", 10)
    write_grey(tmp_path / "overflow.png", 200)

    def broken(images: Tensor) -> Prediction:
        said = brightness(images)
        return Prediction(said.score, torch.where(said.map > 0.5, torch.nan, said.map))

    batches = [list(find_images(tmp_path))]
    for with_maps in (True, False):
        said = score_images(broken, batches, loading(), device=CPU, with_maps=with_maps)
        with pytest.raises(
            UsageError, match=r"NaN or infinity for .*overflow\.png; precision=32-true"
        ):
            list(said)


def test_calibration_on_a_folder_of_normal_images(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for value in range(40):
        write_grey(tmp_path / "normals" / f"{value:02d}.png", value)
    (tmp_path / "normals" / "bad.png").write_text("not an image")
    # Rank ceil(41 * 0.9) = 37 is grey value 36.
    write_grey(tmp_path / "new" / "36.png", 36)
    write_grey(tmp_path / "new" / "37.png", 37)
    calibration = Calibration(str(tmp_path / "normals"), 0.1)
    summary = run(tmp_path / "new", tmp_path / "out", threshold=calibration)
    assert summary.threshold is not None
    assert summary.threshold.num_normals == 40
    assert "bad.png" in caplog.text
    assert [row["anomalous"] for row in rows_of(summary)] == [0, 1]


@pytest.mark.parametrize(
    ("options", "key", "value"),
    [
        (outputs, "scores", "xlsx"),
        *((outputs, "part_size", value) for value in (0, 2.5, True, "many", None)),
        (outputs, "maps", "tif"),
        (outputs, "overlays", "gif"),
        *((outputs, "alpha", value) for value in (math.nan, 1.5)),
        *((loading, "batch_size", value) for value in (0, 1.5, True, "banana")),
        *((loading, "image_size", value) for value in (0, [112, 224], math.inf)),
        *((loading, "num_workers", value) for value in (-1, 0.5, "banana")),
        (loading, "on_error", "ignore"),
    ],
)
def test_mistaken_options_name_their_keys(options: object, key: str, value: object) -> None:
    with pytest.raises(UsageError, match=f"^{key} must be "):
        options(**{key: value})


def test_foreign_files_in_the_folder_are_named(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "normals").mkdir()
    write_grey(tmp_path / "normals" / "1.png", 30)
    calibration = Calibration(str(tmp_path / "normals"), 0.4)
    for name, content in (
        ("calibration.json", '{"odd": 1}'),
        ("calibration.json", '{"value": "high"}'),
        ("settings.json", "[]"),
    ):
        output = tmp_path / content.strip('{"}')
        run(photos, output, threshold=calibration)
        (output / name).write_text(content)
        with pytest.raises(UsageError, match=rf"cannot read .*{name}: .*overwrite=true"):
            run(photos, output, threshold=calibration)
        run(photos, output, threshold=calibration, overwrite=True)


def test_many_unreadable_images_are_counted_and_a_few_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_grey(tmp_path / "photos" / "a.png", 7)
    for place in range(MAX_SHOWN + 3):
        (tmp_path / "photos" / f"bad_{place:02d}.png").write_text("not an image")
    summary = run(tmp_path / "photos", tmp_path / "out")
    assert (summary.num_scored, summary.num_skipped) == (1, MAX_SHOWN + 3)
    assert len(summary.skipped) == MAX_SHOWN
    assert "and 3 more" in caplog.text
    assert summary.json is not None
    assert len(json.loads(summary.json.read_text())["skipped"]) == MAX_SHOWN + 3


def test_names_that_are_no_text_are_shown_with_escapes(tmp_path: Path) -> None:
    image = write_grey(tmp_path / "photos" / "a.png", 7)
    try:
        image.rename(os.fsdecode(os.fsencode(tmp_path / "photos") + b"/\xff.png"))
    except OSError:
        pytest.skip("this file system takes text only")
    for scores in ("csv", "parquet"):
        summary = run(tmp_path / "photos", tmp_path / scores, written=outputs(scores=scores))
        assert summary.num_scored == 1
    (row,) = read_scores(tmp_path / "csv" / "scores.csv")
    assert str(row["image"]).endswith("\\udcff.png")
