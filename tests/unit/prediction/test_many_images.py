"""Very many images: constant memory, processes, going on after an interruption, both formats."""

import shutil
import tracemalloc
from collections import deque
from collections.abc import Callable
from pathlib import Path

import duckdb
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import Tensor

from crane.errors import UsageError
from crane.pictures import ColourScale
from crane.prediction import joining, write_predictions
from crane.prediction.calibration import Calibration, Threshold
from crane.prediction.image_scoring import LoadOptions
from crane.prediction.inputs import find_images
from crane.prediction.outputs import OutputOptions
from crane.prediction.table import PredictSummary, ScoreTable
from crane.processes import ALONE, Launched
from crane.types import Prediction
from longer import one_by_default

SIZE = 8
SCALE = ColourScale(vmin=0.0, vmax=1.0, colormap="inferno")


class Detector:
    """Scores brightness; remembers what it saw, and breaks off at a batch if told to."""

    def __init__(self, break_at: int | None = None) -> None:
        self.break_at, self.num_loads = break_at, 0
        self.batches: list[list[int]] | deque = []

    def load(self) -> Callable[[Tensor], Prediction]:
        self.num_loads += 1
        return self

    def __call__(self, images: Tensor) -> Prediction:
        if len(self.batches) == self.break_at:
            raise KeyboardInterrupt
        map = images.mean(dim=1)
        score = map.mean(dim=(1, 2))
        self.batches.append([round(value * 255) for value in score.tolist()])
        return Prediction(score, map)


def outputs(scores: str = "csv", part_size: int = 6, maps: str = "none") -> OutputOptions:
    return OutputOptions(scores, part_size, maps, "none", SCALE, 0.7)


def run(spec: Path, output: Path, detector: Detector | None = None, **changes) -> PredictSummary:
    options = {
        "made_of": {"checkpoint": "one"},
        "overwrite": False,
        "share": ALONE,
        "loading": LoadOptions(SIZE, batch_size=4, num_workers=0, on_error="skip"),
        "outputs": outputs(),
        "threshold": None,
        "device": torch.device("cpu"),
        "show_progress": False,
    }
    load = (detector or Detector()).load
    return write_predictions(load, find_images(spec), output=output, **{**options, **changes})


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """33 images of different grey, one of which is none: six parts, the last of three."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for value in range(33):
        Image.new("L", (SIZE, SIZE), value).save(folder / f"{value:02d}.png")
    (folder / "20.png").write_text("not an image")
    return folder


@pytest.fixture
def whole(photos: Path, tmp_path: Path) -> str:
    """The table of an uninterrupted prediction by one process."""
    return run(photos, tmp_path / "whole").scores.read_text()


def test_batches_end_with_parts(photos: Path, tmp_path: Path) -> None:
    detector = Detector()
    run(photos, tmp_path / "out", detector)
    sizes = [len(batch) for batch in detector.batches]
    assert sizes == [4, 2, 4, 2, 4, 2, 3, 2, 4, 2, 3], "the fourth part has an unreadable image"
    assert sorted(value for batch in detector.batches for value in batch) == [
        value for value in range(33) if value != 20
    ]


@pytest.mark.parametrize("count", [2, 3, 7])
def test_processes_make_the_same_table_in_any_order(
    count: int, photos: Path, whole: str, tmp_path: Path
) -> None:
    seen = []
    for index in reversed(range(count)):
        detector = Detector()
        summary = run(photos, tmp_path / "out", detector, share=Launched(index, count, 0))
        assert (summary.num_missing > 0) == (index > 0)
        assert (summary.json is None) == (index > 0)
        assert (tmp_path / "out" / "scores.csv").exists() == (index == 0)
        seen += [value for batch in detector.batches for value in batch]
    assert sorted(seen) == [value for value in range(33) if value != 20]
    assert summary.scores.read_text() == whole
    assert (summary.num_scored, summary.num_skipped) == (32, 1)


def test_only_the_last_process_reads_parts(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, read_part = [], ScoreTable.read
    monkeypatch.setattr(
        ScoreTable, "read", lambda table, n, names: read.append(n) or read_part(table, n, names)
    )
    for index, num_own in ((0, 12), (1, 12)):
        summary = run(photos, tmp_path / "out", share=Launched(index, 3, 0))
        assert summary.num_scored + summary.num_skipped == num_own, "those of its own"
    assert read == []
    run(photos, tmp_path / "out", share=Launched(2, 3, 0))
    assert read == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("scores", ["csv", "parquet"])
def test_a_part_of_other_images_is_refused(scores: str, photos: Path, tmp_path: Path) -> None:
    run(photos, tmp_path / "out", outputs=outputs(scores))
    first, second = (tmp_path / "out" / "scores" / f"part-0000000{n}.{scores}" for n in (0, 1))
    shutil.copy(first, second)
    with pytest.raises(UsageError, match=r"part-00000001.* holds rows of other images; remove it"):
        run(photos, tmp_path / "out", outputs=outputs(scores))


def test_more_processes_than_parts_say_so(
    photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    detector = Detector()
    summary = run(photos, tmp_path / "out", detector, share=Launched(6, 7, 0))
    assert (summary.num_missing, detector.num_loads) == (33, 0)
    assert "a lower part_size makes more" in caplog.text


def test_goes_on_where_it_was_interrupted(photos: Path, whole: str, tmp_path: Path) -> None:
    first, second, third = Detector(break_at=5), Detector(), Detector()
    with pytest.raises(KeyboardInterrupt):
        run(photos, tmp_path / "out", first)
    parts = sorted((tmp_path / "out" / "scores").iterdir())
    assert [part.name for part in parts] == ["part-00000000.csv", "part-00000001.csv"]
    times = [part.stat().st_mtime_ns for part in parts]
    # With another number of processes, and after that once more for nothing.
    run(photos, tmp_path / "out", second, share=Launched(1, 2, 0))
    summary = run(photos, tmp_path / "out", third)
    assert summary.scores.read_text() == whole
    assert [part.stat().st_mtime_ns for part in parts] == times
    seen = [value for batch in second.batches + third.batches for value in batch]
    assert sorted(seen) == [value for value in range(12, 33) if value != 20]
    fourth = Detector()
    assert run(photos, tmp_path / "out", fourth) == summary
    assert fourth.num_loads == 0


def test_a_part_left_half_written_is_passed_over(photos: Path, whole: str, tmp_path: Path) -> None:
    run(photos, tmp_path / "out", share=Launched(0, 2, 0))
    half = (tmp_path / "out" / "scores" / "part-00000000.csv").read_text()[:40]
    (tmp_path / "out" / "scores" / ".part-00000001.csv.0123").write_text(half)
    assert run(photos, tmp_path / "out").scores.read_text() == whole
    table = pd.concat(map(pd.read_csv, sorted((tmp_path / "out" / "scores").glob("*.csv"))))
    assert len(table) == 33


@pytest.mark.parametrize("scores", ["csv", "parquet"])
@pytest.mark.parametrize("damage", [lambda content: content[:-30], lambda content: b""])
def test_a_damaged_part_is_an_error_that_says_what_to_do(
    scores: str, damage: Callable[[bytes], bytes], photos: Path, tmp_path: Path
) -> None:
    table = outputs(scores)
    run(photos, tmp_path / "out", outputs=table)
    part = tmp_path / "out" / "scores" / f"part-00000002.{scores}"
    part.write_bytes(damage(part.read_bytes()))
    with pytest.raises(UsageError, match=r"part-00000002.* (cannot be read|holds).*remove it"):
        run(photos, tmp_path / "out", outputs=table)
    part.unlink()
    assert run(photos, tmp_path / "out", outputs=table).num_scored == 32


@pytest.mark.parametrize(
    ("key", "changes"),
    [
        ("checkpoint", {"made_of": {"checkpoint": "two"}}),
        ("guide", {"made_of": {"checkpoint": "one", "guide": {"beta": 1.2}}}),
        ("scores", {"outputs": outputs("parquet")}),
        ("part_size", {"outputs": outputs(part_size=7)}),
        ("maps", {"outputs": outputs(maps="npy")}),
    ],
)
def test_other_settings_are_refused_and_named(
    key: str, changes: dict, photos: Path, whole: str, tmp_path: Path
) -> None:
    detector = Detector()
    with pytest.raises(
        UsageError, match=rf"started with another {key}; .*output, or overwrite=true"
    ):
        run(photos, tmp_path / "whole", detector, **changes)
    assert detector.num_loads == 0
    assert (tmp_path / "whole" / "scores.csv").read_text() == whole
    run(photos, tmp_path / "whole", detector, overwrite=True, **changes)
    assert sum(map(len, detector.batches)) == 32


@pytest.mark.parametrize("overwrite", [True, False])
def test_a_model_that_cannot_be_loaded_leaves_the_folder_as_it_was(
    overwrite: bool, photos: Path, whole: str, tmp_path: Path
) -> None:
    detector = Detector()
    detector.load = lambda: (_ for _ in ()).throw(UsageError("no weights"))
    with pytest.raises(UsageError, match="no weights"):
        run(photos, tmp_path / "new", detector, overwrite=overwrite)
    assert not (tmp_path / "new").exists()
    with pytest.raises(UsageError, match="no weights"):
        run(photos, tmp_path / "whole", detector, made_of={}, overwrite=True)
    assert run(photos, tmp_path / "whole").scores.read_text() == whole


def test_other_images_are_refused(photos: Path, whole: str, tmp_path: Path) -> None:
    Image.new("L", (SIZE, SIZE), 99).save(photos / "99.png")
    with pytest.raises(UsageError, match="another input"):
        run(photos, tmp_path / "whole")
    summary = run(photos, tmp_path / "whole", overwrite=True)
    assert summary.scores.read_text().startswith(whole)
    assert summary.num_images == 34


def test_a_threshold_is_calibrated_once_for_all_processes(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "normals").mkdir()
    for value in (3, 9):
        Image.new("L", (SIZE, SIZE), value).save(tmp_path / "normals" / f"{value}.png")
    wanted = Calibration(str(tmp_path / "normals"), 0.4)
    detectors = [Detector(), Detector()]
    for index, detector in enumerate(detectors):
        share = Launched(index, 2, 0)
        summary = run(photos, tmp_path / "out", detector, threshold=wanted, share=share)
    assert [detector.batches.count([3, 9]) for detector in detectors] == [1, 0]
    assert summary.threshold is not None
    assert summary.num_anomalous == 22, "those above 9, but for the one that is not an image"
    Image.new("L", (SIZE, SIZE), 30).save(tmp_path / "normals" / "30.png")
    again, wanted = Detector(), Calibration(str(tmp_path / "normals"), 0.4)
    summary = run(photos, tmp_path / "out", again, threshold=wanted)
    assert [list(batch) for batch in again.batches] == [[3, 30, 9]], "only the normal images"
    assert summary.num_anomalous == 2, "those above 30"


@pytest.mark.parametrize("scores", one_by_default(["csv", "parquet"]))
def test_another_threshold_decides_again_without_scoring(
    scores: str, photos: Path, tmp_path: Path
) -> None:
    """Each way from one decision to another ends as if the last had been the first."""
    (tmp_path / "normals").mkdir()
    for value in (3, 9, 12, 30):
        Image.new("L", (SIZE, SIZE), value).save(tmp_path / "normals" / f"{value}.png")
    decisions = [
        *(None, Threshold(0.05), Threshold(0.1)),
        *(Calibration(str(tmp_path / "normals"), rate) for rate in (0.3, 0.5)),
    ]
    table = outputs(scores, maps="png")
    for first in decisions:
        output = tmp_path / f"out_{decisions.index(first)}"
        run(photos, output, outputs=table, threshold=first)
        for then in decisions:
            detector = Detector()
            summary = run(photos, output, detector, outputs=table, threshold=then)
            seen = [value for batch in detector.batches for value in batch]
            assert set(seen) <= {3, 9, 12, 30}, "normal images at most"
            fresh = tmp_path / f"fresh_{decisions.index(then)}"
            wanted = run(photos, fresh, outputs=table, threshold=then)
            assert summary.num_anomalous == wanted.num_anomalous
            for name in ("scores.csv", "scores.json", "regions.csv", "predictions.html"):
                assert (output / name).exists() == (fresh / name).exists()
                if (fresh / name).exists():
                    assert (output / name).read_bytes() == (fresh / name).read_bytes()


def test_a_decision_that_was_interrupted_is_taken_up_again(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(photos, tmp_path / "out", threshold=Threshold(0.05))
    write, written = ScoreTable.write, []

    def breaking_off(table: ScoreTable, number: int, images: object) -> None:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(number)
        write(table, number, images)

    with monkeypatch.context() as patch:
        patch.setattr(ScoreTable, "write", breaking_off)
        with pytest.raises(KeyboardInterrupt):
            run(photos, tmp_path / "out", threshold=Threshold(0.1))
    assert not (tmp_path / "out" / "scores.csv").exists(), "half of it would be decided otherwise"
    fresh = run(photos, tmp_path / "fresh", threshold=Threshold(0.1))
    summary = run(photos, tmp_path / "out", threshold=Threshold(0.1))
    assert summary.scores.read_bytes() == fresh.scores.read_bytes()


def test_parquet_is_read_by_pandas_and_duckdb(photos: Path, tmp_path: Path) -> None:
    csv = run(photos, tmp_path / "csv", threshold=Threshold(0.05))
    options = {"outputs": outputs("parquet"), "threshold": Threshold(0.05)}
    for index in (1, 0):
        summary = run(photos, tmp_path / "parquet", share=Launched(index, 2, 0), **options)
    assert summary.scores == tmp_path / "parquet" / "scores"
    wanted = pd.read_csv(csv.scores)
    read = pd.read_parquet(summary.scores)
    pd.testing.assert_frame_equal(read, wanted, check_dtype=False)
    assert str(read["score"].dtype) == "float64"
    query = f"SELECT count(*), sum(anomalous), count(error) FROM '{summary.scores}/*.parquet'"
    assert duckdb.sql(query).fetchall() == [(33, csv.num_anomalous, 1)]
    assert summary.json is not None
    assert not (tmp_path / "parquet" / "scores.csv").exists()


@pytest.mark.long
@pytest.mark.parametrize("scores", ["csv", "parquet"])
def test_memory_does_not_grow_with_the_images(
    scores: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joining, "MAX_ROWS", 50)  # the page lists so many
    monkeypatch.setattr(joining, "MAX_LABELLED", 50)
    line = "/." * 50 + f"{photos}/01.png\n"  # long names, so that keeping any would show
    peaks = []
    for num_images in (300, 1400):  # several parts each
        (tmp_path / "list.txt").write_text(line * num_images)
        detector = Detector()
        detector.batches = deque(maxlen=0)  # what it remembers would grow
        tracemalloc.start()
        summary = run(
            tmp_path / "list.txt",
            tmp_path / f"{scores}_{num_images}",
            detector,
            outputs=outputs(scores, 100),
        )
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert summary.num_scored == num_images
    assert peaks[1] - peaks[0] < 50_000, "1100 names alone take 180,000 bytes"
