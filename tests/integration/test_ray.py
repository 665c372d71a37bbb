"""`engine=ray` and object stores: the rows of `engine=local`, on a cluster, whatever dies."""

import csv
import os
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from crane.data.lists import _store

ray = pytest.importorskip("ray", reason="Ray, an extra, is not installed")

pytestmark = pytest.mark.long

NUM_IMAGES = 24


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(3)
    for number in range(NUM_IMAGES):
        (folder / f"{number % 3}").mkdir(exist_ok=True)
        size = (40 + number, 60, 3)
        pixels = rng.integers(0, 256, size, dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number % 3}" / f"{number}.png")
    (folder / "0" / "broken.png").write_bytes(b"no image")
    return folder


@pytest.fixture(scope="module")
def cluster():
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="error")
    yield
    ray.shutdown()


def predicted(crane, images, output, *more, part_size=4):
    outcome = crane(
        *("predict", "checkpoint=mini", f"input={images}", f"output={output}"),
        *("accelerator=cpu", "overlays=none", f"part_size={part_size}", *more),
    )
    assert outcome.code == 0, outcome.err
    with (output / "scores.csv").open() as file:
        return list(csv.DictReader(file))


def assert_same(rows, wanted):
    assert [row["image"] for row in rows] == [row["image"] for row in wanted]
    for row, other in zip(rows, wanted, strict=True):
        assert row.keys() == other.keys()
        assert bool(row["error"]) == bool(other["error"])
        if row["score"]:
            assert float(row["score"]) == pytest.approx(float(other["score"]), abs=1e-5)


def workers():
    """The processes that hold a model."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if b"MapWorker" in path.read_bytes():
                found.append(int(path.parent.name))
    return found


def test_the_rows_are_those_of_the_local_engine(crane, photos, cluster, tmp_path):
    wanted = predicted(crane, photos, tmp_path / "local")
    assert sum(row["error"] != "" for row in wanted) == 1
    rows = predicted(crane, photos, tmp_path / "ray", "engine=ray")
    assert_same(rows, wanted)
    for name in ("regions.csv", "predictions.html"):
        assert (tmp_path / "ray" / name).is_file()
    one, other = (sorted((tmp_path / n / "maps").rglob("*.png")) for n in ("ray", "local"))
    assert len(one) == NUM_IMAGES
    for ours, theirs in zip(one, other, strict=True):
        levels = [np.asarray(Image.open(path)).astype(int) for path in (ours, theirs)]
        assert abs(levels[0] - levels[1]).max() <= 1

    # A part is missing: either engine goes on, and nothing else is written again.
    parts = sorted((tmp_path / "ray" / "scores").iterdir())
    parts[2].unlink()
    before = {path: path.stat().st_mtime_ns for path in parts[3:]}
    assert_same(predicted(crane, photos, tmp_path / "ray", "engine=ray"), wanted)
    assert {path: path.stat().st_mtime_ns for path in parts[3:]} == before


def test_a_worker_that_is_killed_loses_nothing(crane, photos, cluster, tmp_path):
    wanted = predicted(crane, photos, tmp_path / "local", "maps=none", part_size=1)
    killed = []

    def kill():
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and not killed:
            scores = tmp_path / "ray" / "scores"
            if scores.is_dir() and len(list(scores.iterdir())) >= 2 and (found := workers()):
                os.kill(found[0], signal.SIGKILL)
                killed.append(found[0])
            time.sleep(0.05)

    thread = threading.Thread(target=kill)
    thread.start()
    rows = predicted(crane, photos, tmp_path / "ray", "maps=none", "engine=ray", part_size=1)
    thread.join()
    assert killed, "no worker was found while parts were missing"
    assert_same(rows, wanted)


def test_mistakes_on_workers_are_told_once(crane, photos, cluster, tmp_path):
    outcome = crane(
        *("predict", "checkpoint=mini", f"input={photos}", "on_error=fail", "engine=ray"),
        *("accelerator=cpu", f"output={tmp_path / 'out'}", "maps=none", "overlays=none"),
    )
    assert outcome.code == 2
    assert "broken.png" in outcome.err
    assert "on_error=skip goes on without it" in outcome.err.splitlines()[-1]


@pytest.fixture
def bucket(photos, monkeypatch):
    """The photographs in an object store on the loopback address."""
    server = pytest.importorskip("moto.server").ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
    }.items():
        monkeypatch.setenv(name, value)
    from pyarrow.fs import S3FileSystem

    store = S3FileSystem(
        endpoint_override=os.environ["AWS_ENDPOINT_URL"], allow_bucket_creation=True
    )
    store.create_dir("images")
    for path in photos.rglob("*.png"):
        with store.open_output_stream(f"images/photos/{path.relative_to(photos)}") as out:
            out.write(path.read_bytes())
    _store.cache_clear()
    yield "s3://images/photos"
    _store.cache_clear()
    server.stop()


def test_images_in_an_object_store(crane, photos, bucket, tmp_path):
    wanted = predicted(crane, photos, tmp_path / "local", "maps=none")
    found = predicted(crane, bucket, tmp_path / "s3", "maps=none")
    assert_same(found, wanted)
    (error,) = (row["error"] for row in found if row["error"])
    assert error == f"cannot read image {bucket}/0/broken.png: cannot identify image file"
    names = [row["image"] for row in wanted]
    listed = tmp_path / "list.parquet"
    pq.write_table(pa.table({"image": [f"{bucket}/{name}" for name in names]}), listed)
    rows = predicted(crane, listed, tmp_path / "listed", "maps=none")
    assert_same(rows, wanted)
    outcome = crane("predict", "checkpoint=mini", f"input={bucket}/nothing", "accelerator=cpu")
    assert outcome.code == 2
    assert "there is no" in outcome.err


def test_a_list_in_parquet(crane, photos, tmp_path):
    paths = [str(path) for path in sorted(photos.rglob("*.png"))]
    pq.write_table(pa.table({"path": paths, "size": [1] * len(paths)}), tmp_path / "list.parquet")
    rows = predicted(crane, tmp_path / "list.parquet", tmp_path / "out", "maps=none")
    assert len(rows) == len(paths)
    for table, said in (
        (pa.table({"picture": paths}), "call it image"),
        (pa.table({"image": [1, 2]}), "must hold text"),
        (pa.table({"image": ["a.png", None]}), "must hold text"),
    ):
        pq.write_table(table, tmp_path / "wrong.parquet")
        outcome = crane("predict", "checkpoint=mini", f"input={tmp_path / 'wrong.parquet'}")
        assert outcome.code == 2
        assert said in outcome.err
    (tmp_path / "wrong.parquet").write_text("no table")
    outcome = crane("predict", "checkpoint=mini", f"input={tmp_path / 'wrong.parquet'}")
    assert outcome.code == 2
    assert "cannot read" in outcome.err


def test_a_cluster_that_is_not_there_is_named(crane, photos, tmp_path, monkeypatch):
    if ray.is_initialized():
        ray.shutdown()
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    outcome = crane("predict", "checkpoint=mini", f"input={photos}", "engine=ray")
    assert outcome.code == 2
    assert "no Ray cluster answers at RAY_ADDRESS=127.0.0.1:1" in outcome.err
