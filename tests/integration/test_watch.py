"""`crane predict watch=true`: images that arrive slowly, in halves, damaged, while it is down."""

import csv
import io
import json
import os
import signal
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import crane as package
from crane.errors import UsageError
from crane.prediction import table, watching
from crane.prediction.verdict_hook import VerdictHook
from crane.prediction.watching import Arrivals

pytestmark = pytest.mark.long

RNG = np.random.default_rng(5)
WORDS = ("predict", "checkpoint=mini", "watch=true", "accelerator=cpu", "poll_seconds=0.05")


def image_bytes(kind: str = "png", size: int = 40) -> bytes:
    content = io.BytesIO()
    Image.fromarray(RNG.integers(0, 256, (size, size, 3), dtype=np.uint8)).save(content, kind)
    return content.getvalue()


def rows_of(output: Path) -> list[dict[str, str]]:
    with (output / "scores.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def num_rows(output: Path) -> int:
    return sum(len(p.read_text().splitlines()) - 1 for p in (output / "scores").glob("part-*.csv"))


@pytest.fixture
def watch(crane, tmp_path, monkeypatch):
    """Watch while `write` runs in a thread, until a number of rows is there; then SIGTERM."""
    folder, output = tmp_path / "camera", tmp_path / "scored"
    folder.mkdir()
    started, original = threading.Event(), watching.Watcher.run

    def running(self, *arguments):
        started.set()
        return original(self, *arguments)

    monkeypatch.setattr(watching.Watcher, "run", running)

    def run(write, wanted: int, *overrides: str, code: int = 128 + signal.SIGTERM):
        ended = threading.Event()
        started.clear()

        def work() -> None:
            try:
                assert started.wait(60)
                write(folder)
                end = time.monotonic() + 60
                while num_rows(output) < wanted and time.monotonic() < end and not ended.wait(0.05):
                    pass
                ended.wait(0.5)
            finally:
                if not ended.is_set():
                    os.kill(os.getpid(), signal.SIGTERM)

        thread = threading.Thread(target=work)
        thread.start()
        outcome = crane(*WORDS, f"input={folder}", f"output={output}", *overrides)
        ended.set()
        thread.join()
        assert outcome.code == code, outcome.err
        return outcome

    run.folder, run.output = folder, output
    return run


def slowly(path: Path, content: bytes, steps: int = 6, pause: float = 0.15) -> None:
    """Write a file in pieces, with pauses longer than two looks."""
    with path.open("wb") as file:
        for piece in np.array_split(np.frombuffer(content, np.uint8), steps):
            file.write(piece.tobytes())
            file.flush()
            time.sleep(pause)


def test_whole_files_only_in_parts_that_grow(watch):
    contents = {f"{number}.png": image_bytes() for number in range(5)}
    contents |= {"slow.jpg": image_bytes("jpeg"), "slow.bmp": image_bytes("bmp")}

    def write(folder: Path) -> None:
        threads = [
            threading.Thread(target=slowly, args=(folder / name, contents[name]))
            for name in ("slow.jpg", "slow.bmp")
        ]
        for thread in threads:
            thread.start()
        for number in range(5):
            (folder / f"{number}.png").write_bytes(contents[f"{number}.png"])
            time.sleep(0.1)
        for thread in threads:
            thread.join()
        (folder / "half.png").write_bytes(image_bytes()[:900])
        (folder / "empty.png").touch()
        (folder / ".hidden.png").write_bytes(image_bytes())
        (folder / "notes.txt").write_text("no image")

    outcome = watch(write, 9, "part_size=4", "give_up_seconds=0.6", "threshold=0.2", "maps=none")
    rows = {row["image"]: row for row in rows_of(watch.output)}
    assert set(rows) == {*contents, "half.png", "empty.png"}
    detector = package.load("mini", device="cpu")
    for name, row in rows.items():
        if name in contents:
            score = detector.predict(watch.folder / name).score
            assert float(row["score"]) == pytest.approx(score, abs=1e-5)
            assert row["anomalous"] == str(int(float(row["score"]) >= 0.2))
        else:
            assert (row["score"], bool(row["error"])) == ("", True)
    sizes = [
        len(p.read_text().splitlines()) - 1 for p in sorted((watch.output / "scores").glob("*"))
    ]
    assert sizes == [4, 4, 1]
    assert "7 of 9 images scored" in outcome.out
    assert outcome.err.splitlines()[-1].startswith("crane: stopped by SIGTERM; finished parts")
    summary = json.loads((watch.output / "scores.json").read_text())
    assert (summary["num_images"], summary["num_skipped"]) == (9, 2)
    assert (watch.output / "predictions.html").is_file()


def test_what_was_scored_is_not_scored_again(watch, monkeypatch):
    scored = []
    original = watching.score_images

    def counted(detector, batches, *rest, **options):
        scored.extend(path for batch in batches for path in batch)
        return original(detector, batches, *rest, **options)

    monkeypatch.setattr(watching, "score_images", counted)
    first = [f"{number}.png" for number in range(3)]

    def write_first(folder: Path) -> None:
        for name in first:
            (folder / name).write_bytes(image_bytes())

    def write_more(folder: Path) -> None:
        for name in ("deep/3.png", "deep/4.png"):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(image_bytes())

    watch(write_first, 3, "part_size=4", "threshold=0.1")
    regions = (watch.output / "regions.csv").read_text().splitlines()
    watch(write_more, 5, "part_size=4", "threshold=0.1")
    assert sorted(Path(path).name for path in scored) == [f"{number}.png" for number in range(5)]
    assert [row["image"] for row in rows_of(watch.output)][:3] == first
    assert {row["image"] for row in rows_of(watch.output)[3:]} == {"deep/3.png", "deep/4.png"}
    assert (watch.output / "regions.csv").read_text().splitlines()[: len(regions)] == regions
    watch(lambda folder: None, 5, "part_size=4", "threshold=0.9")  # decided again, not scored
    assert {row["anomalous"] for row in rows_of(watch.output)} == {"0"}
    assert len(scored) == 5


def test_a_crash_while_a_part_is_written_loses_no_row(watch, monkeypatch):
    original, calls = table.replacing, []

    def crashing(path, **options):
        calls.append(path)
        if len(calls) > 1:
            raise MemoryError
        return original(path, **options)

    def write(folder: Path) -> None:
        for name in ("a.png", "b.png"):
            (folder / name).write_bytes(image_bytes())
            end = time.monotonic() + 30
            while num_rows(watch.output) < 1 and time.monotonic() < end:
                time.sleep(0.05)

    monkeypatch.setattr(table, "replacing", crashing)
    watch(write, 3, code=2)
    monkeypatch.setattr(table, "replacing", original)
    watch(lambda folder: None, 2)
    assert [row["image"] for row in rows_of(watch.output)] == ["a.png", "b.png"]


class Heard(BaseHTTPRequestHandler):
    """Keeps what is posted; answers some images with an error, some with a redirect."""

    heard: list[dict] = []  # noqa: RUF012

    def do_POST(self):
        content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.heard.append(content)
        self.send_response(500 if "1.png" in content["image"] else 200)
        self.end_headers()

    def log_message(self, *arguments):
        pass


@pytest.fixture
def address():
    Heard.heard.clear()
    server = HTTPServer(("127.0.0.1", 0), Heard)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/verdicts?line=3"
    server.shutdown()


def test_verdicts_are_posted_and_a_failure_stops_nothing(watch, address):
    def write(folder: Path) -> None:
        for number in range(3):
            (folder / f"{number}.png").write_bytes(image_bytes())

    words = (f"on_verdict='{address}'", "threshold=0.0", "maps=none", "overlays=none")
    outcome = watch(write, 3, *words)
    assert {Path(one["image"]).name for one in Heard.heard} == {"0.png", "1.png", "2.png"}
    assert all(one["is_anomalous"] is True for one in Heard.heard)
    said = [line for line in outcome.out.splitlines() if "on_verdict" in line]
    assert "1.png was not told: 127.0.0.1 answered 500" in said[0]
    assert said[-1].endswith("on_verdict: 1 verdict was not told")


def told(hook: VerdictHook, *names: str) -> None:
    for name in names:
        hook.tell({"image": name, "score": 0.5})
    hook.close()


def test_a_command_gets_json_and_no_shell(tmp_path, caplog):
    out = tmp_path / "told"
    code = f"import sys; open({str(out)!r}, 'a').write(sys.stdin.read() + sys.argv[1] + '\\n')"
    name = "$(touch hacked); `id` | x.png"
    told(VerdictHook([sys.executable, "-c", code, "; touch hacked"]), name, "b.png")
    lines = out.read_text().splitlines()
    assert [json.loads(line.rpartition("}")[0] + "}")["image"] for line in lines] == [name, "b.png"]
    assert not Path("hacked").exists()
    for command in (["/no/such/program"], [sys.executable, "-c", "raise SystemExit(3)"]):
        caplog.clear()
        told(VerdictHook(command), "c.png")
        assert "c.png was not told" in caplog.text


@pytest.mark.parametrize(
    "target",
    [
        "http://8.8.8.8/",
        "http://[2001:4860:4860::8888]/",
        "http://169.254.169.254/latest/meta-data",
        "http://[::ffff:8.8.8.8]/",
        "http://0.0.0.0:80/",
        "https://127.0.0.1/",
        "file:///etc/passwd",
        "ftp://127.0.0.1/",
        "echo hello",
        "http://",
        "http://127.0.0.1:99999/",
        "http://user@8.8.8.8/",
    ],
)
def test_an_address_elsewhere_is_refused(target):
    with pytest.raises(UsageError, match=r"not on this machine or a private|must be a command"):
        VerdictHook(target)


def test_a_name_is_as_private_as_its_numbers(monkeypatch):
    VerdictHook("http://localhost:9/").close()
    for numbers, is_private in ((["10.0.0.1"], True), (["10.0.0.1", "8.8.8.8"], False)):
        entries = [(0, 0, 0, "", (number, 9)) for number in numbers]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, found=entries, **__: found)
        if is_private:
            VerdictHook("http://line.example:9/").close()
        else:
            with pytest.raises(UsageError, match="private network"):
                VerdictHook("http://line.example:9/")


@pytest.mark.parametrize("target", ["http://127.0.0.1:9", "http://10.1.2.3/a", "http://[::1]:8/"])
def test_an_address_nearby_is_taken(target):
    VerdictHook(target).close()


def test_a_file_is_taken_once_it_is_whole_and_at_rest(tmp_path):
    now = [0.0]
    output = tmp_path / "out"
    looking = Arrivals(tmp_path, output, lambda path: False, 10, lambda: now[0])
    content = image_bytes()
    (tmp_path / "a.png").write_bytes(content[:500])
    output.mkdir()
    (output / "b.png").write_bytes(content)
    for seconds in (0, 1, 2):  # half a file is waited for
        now[0] = seconds
        assert looking.look() == []
    (tmp_path / "a.png").write_bytes(content)
    assert looking.look() == []
    assert [one.path for one in looking.look()] == [str(tmp_path / "a.png")]
    (tmp_path / "bad.png").write_bytes(b"no image")
    looking = Arrivals(tmp_path, output, lambda path: "a.png" in path, 10, lambda: now[0])
    assert looking.look() == []
    now[0] += 9
    assert looking.look() == []
    now[0] += 2
    (given_up,) = looking.look()
    assert "cannot read image" in given_up.error
    (tmp_path / "bad.png").unlink()
    assert looking.look() == []


def test_a_file_changed_after_it_was_scored_is_reported_once(tmp_path, caplog):
    known = set()
    looking = Arrivals(tmp_path, tmp_path / "out", known.__contains__, 10)
    (tmp_path / "a.png").write_bytes(image_bytes())
    known.update(one.path for _ in range(2) for one in looking.look())
    assert known == {str(tmp_path / "a.png")}
    assert looking.look() == []
    assert not caplog.messages
    (tmp_path / "a.png").write_bytes(image_bytes(size=50))
    assert [looking.look() for _ in range(3)] == [[], [], []]
    assert [text.partition(" is not scored again")[1] != "" for text in caplog.messages] == [True]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["input=photo.png"], "watch=true needs input=FOLDER"),
        (["input=[.]"], "watch=true needs input=FOLDER"),
        (["input=.", "poll_seconds=0"], "poll_seconds must be a number above 0"),
        (["input=.", "on_verdict=http://8.8.8.8"], "on_verdict: 8.8.8.8 is not on this machine"),
        (["input=.", "on_verdict=[]"], "on_verdict must be"),
        (["input=.", "watch=false", "on_verdict=[a]"], "on_verdict needs watch=true"),
    ],
)
def test_what_does_not_fit_is_said(crane, tmp_path, overrides, said):
    (tmp_path / "photo.png").write_bytes(image_bytes())
    watched = [] if "watch=false" in overrides else ["watch=true"]
    outcome = crane("predict", "checkpoint=mini", "accelerator=cpu", *watched, *overrides)
    assert (outcome.code, outcome.out) == (2, "")
    assert said in outcome.err
