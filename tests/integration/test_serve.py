"""`crane serve` as its users meet it: a process on the loopback address, and clients."""

import base64
import io
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from shutil import which

import httpx
import numpy as np
import pytest
from PIL import Image

import crane

pytestmark = pytest.mark.long

pytest.importorskip("litserve", reason="litserve is not installed")

CHROMIUM = which("chromium") or which("chromium-browser") or which("google-chrome")
COMMAND = (sys.executable, "-m", "crane", "serve", "checkpoint=mini")
MAX_QUEUE, MAX_PIXELS = 16, 250_000
SIZES = [(40, 60), (60, 40), (112, 112), (200, 31)]


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def png(pixels) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "png")
    return content.getvalue()


IMAGES = [
    png(np.random.default_rng(number).integers(0, 256, (*SIZES[number % 4], 3), dtype=np.uint8))
    for number in range(8)
]


def bomb(width: int, height: int) -> bytes:
    """A PNG of some bytes whose header promises any size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


class Server:
    """The command in a process of its own."""

    def __init__(self, folder: Path, *overrides: str) -> None:
        self.port = free_port()
        self.log = folder / "log.txt"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [*COMMAND, f"port={self.port}", *overrides],
                **{"cwd": folder, "stdout": log, "stderr": log, "start_new_session": True},
            )
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=60)

    def wait(self, seconds: float = 120) -> None:
        """Until it is healthy."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                if self.client.get("/health").status_code == 200:
                    return
            except httpx.TransportError:
                assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.2)
        raise AssertionError(self.log.read_text())

    def score(self, image: bytes, **fields) -> httpx.Response:
        return self.client.post("/predict", files={"image": ("a.png", image)}, data=fields)

    def children(self) -> list[int]:
        """The processes of the server, itself left out."""
        group, found = self.process.pid, []
        for place in Path("/proc").glob("[0-9]*/stat"):
            try:
                facts = place.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(facts[2]) == group and int(place.parent.name) != group and facts[0] != "Z":
                found.append(int(place.parent.name))
        return found

    def worker(self) -> int:
        """The process that holds the model."""
        sizes = {}
        for pid in self.children():
            status = Path(f"/proc/{pid}/statm").read_text().split()
            if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes():
                sizes[pid] = int(status[1])
        return max(sizes, key=sizes.get)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    limits = [f"max_queue={MAX_QUEUE}", f"max_pixels={MAX_PIXELS}", "max_body_mb=0.5"]
    started = Server(
        tmp_path_factory.mktemp("serve"), "threshold=0.3", "accelerator=cpu", "timeout=40", *limits
    )
    try:
        started.wait()
        yield started
    finally:
        if started.process.poll() is None:
            os.killpg(started.process.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def expected():
    detector = crane.load("mini", device="cpu", threshold=0.3)
    return [detector.predict(Image.open(io.BytesIO(one))) for one in IMAGES]


def agrees(answer: dict, result) -> None:
    assert answer["score"] == pytest.approx(result.score, abs=1e-5)
    assert answer["is_anomalous"] == result.is_anomalous
    assert answer["threshold"]["value"] == 0.3
    assert (answer["height"], answer["width"]) == result.map.shape
    assert len(answer["regions"]) == len(result.regions)
    for told, region in zip(answer["regions"], result.regions, strict=True):
        assert told["peak"] == pytest.approx(region.peak, abs=1e-5)


def test_a_form_and_json_give_what_the_detector_gives(server, expected):
    for image, result in zip(IMAGES[:3], expected, strict=False):
        answer = server.score(image).json()
        agrees(answer, result)
        assert "map" not in answer
    text = base64.b64encode(IMAGES[0]).decode()
    answer = server.client.post("/predict", json={"image": text, "map": True}).json()
    agrees(answer, expected[0])
    levels = np.asarray(Image.open(io.BytesIO(base64.b64decode(answer["map"]))))
    assert np.abs(levels / 65535 - expected[0].map).max() < 1e-4
    for with_map in (server.score(IMAGES[0], map="true"), None):
        if with_map is None:
            files = {"image": IMAGES[0]}
            with_map = server.client.post("/predict?map=true", files=files)
        assert with_map.json()["map"] == answer["map"]


def test_eight_clients_at_once_lose_nothing(server, expected):
    def ask(number: int) -> None:
        answer = server.score(IMAGES[number % 8])
        assert answer.status_code == 200, answer.text
        agrees(answer.json(), expected[number % 8])

    with ThreadPoolExecutor(8) as clients:
        list(clients.map(ask, range(80)))


def test_what_is_beyond_the_queue_is_refused_and_the_rest_is_answered(server):
    with ThreadPoolExecutor(4 * MAX_QUEUE) as clients:
        answers = list(clients.map(lambda _: server.score(IMAGES[0]), range(6 * MAX_QUEUE)))
    codes = [answer.status_code for answer in answers]
    assert set(codes) <= {200, 503}
    assert codes.count(200) >= MAX_QUEUE
    refused = [answer for answer in answers if answer.status_code == 503]
    assert all("try again later" in answer.json()["detail"] for answer in refused)
    assert server.score(IMAGES[0]).status_code == 200


TEXT = base64.b64encode(IMAGES[0]).decode()
HOSTILE = {
    "not an image": (400, {"files": {"image": b"hello" * 99}}),
    "a gif": (400, {"files": {"image": b"GIF89a" + bytes(99)}}),
    "postscript": (400, {"files": {"image": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"}}),
    "half an image": (400, {"files": {"image": IMAGES[2][: len(IMAGES[2]) // 2]}}),
    "a bomb": (413, {"files": {"image": bomb(60_000, 60_000)}}),
    "a bomb that Pillow refuses": (413, {"files": {"image": bomb(2_000_000, 2_000_000)}}),
    "just too many pixels": (413, {"files": {"image": bomb(501, 500)}}),
    "empty file": (400, {"files": {"image": b""}}),
    "another field": (400, {"files": {"picture": IMAGES[0]}}),
    "two images": (400, {"files": [("image", IMAGES[0]), ("image", IMAGES[1])]}),
    "a path as field": (400, {"files": {"map": b"x"}, "data": {"image": "/etc/passwd"}}),
    "a form without a boundary": (
        400,
        {"content": b"abc", "headers": {"content-type": "multipart/form-data"}},
    ),
    "a broken form": (
        400,
        {"content": b"--x\r\n\xff", "headers": {"content-type": "multipart/form-data; boundary=x"}},
    ),
    "nothing": (415, {}),
    "a bare body": (415, {"content": IMAGES[0], "headers": {"content-type": "image/png"}}),
    "no JSON": (400, {"content": b"{", "headers": {"content-type": "application/json"}}),
    "deep JSON": (
        400,
        {"content": b"[" * 200_000, "headers": {"content-type": "application/json"}},
    ),
    "a list": (400, {"json": [TEXT]}),
    "JSON with a path": (400, {"json": {"path": "/etc/passwd"}}),
    "JSON with a path as image": (400, {"json": {"image": "/etc/passwd"}}),
    "JSON with an address": (400, {"json": {"image": "http://127.0.0.1/a.png"}}),
    "JSON with another key": (400, {"json": {"image": TEXT, "url": "http://127.0.0.1"}}),
    "JSON with a number": (400, {"json": {"image": 7}}),
    "an unclear flag": (400, {"json": {"image": TEXT, "map": "perhaps"}}),
    "too large": (413, {"files": {"image": bytes(600_000)}}),
    "far too large": (413, {"files": {"image": bytes(1_400_000)}}),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_request_is_refused_in_one_sentence(server, name):
    code, request = HOSTILE[name]
    answer = server.client.post("/predict", **request)
    said = answer.json()["detail"]
    assert (answer.status_code, type(said)) == (code, str), said
    assert "\n" not in said
    assert "Traceback" not in said
    assert len(said) < 300


def test_bad_images_in_a_batch_concern_no_other(server, expected):
    def ask(number: int) -> int:
        return server.score(b"no image" if number % 2 else IMAGES[number % 8]).status_code

    with ThreadPoolExecutor(8) as clients:
        codes = list(clients.map(ask, range(24)))
    assert codes == [200, 400] * 12


def test_the_client_of_the_page_runs(server, tmp_path):
    page = (Path(__file__).resolve().parents[2] / "docs" / "serve.md").read_text()
    code = page.split("```python\n")[1].split("```")[0]
    code = code.replace("http://127.0.0.1:8000", str(server.client.base_url).rstrip("/"))
    (tmp_path / "part.png").write_bytes(IMAGES[0])
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "part.json").read_text())["score"] > 0


def test_it_describes_itself(server):
    assert server.client.get("/health").text == "ok"
    route = server.client.get("/openapi.json").json()["paths"]["/predict"]["post"]
    assert {*route["requestBody"]["content"]} == {"multipart/form-data", "application/json"}
    told = route["responses"]["200"]["content"]["application/json"]["schema"]["properties"]
    assert {*server.score(IMAGES[0], map="true").json()} == {*told}


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt install chromium")
def test_a_request_is_tried_in_the_openapi_page(server, expected, tmp_path):
    """Nothing is fetched from elsewhere, and an image that is chosen there is scored."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    address, heard = str(server.client.base_url), []
    (tmp_path / "part.png").write_bytes(IMAGES[0])
    with sync_api.sync_playwright() as started:
        running = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = running.new_page()
        page.set_default_timeout(120_000)  # of a busy machine
        page.on("pageerror", lambda error: heard.append(str(error)))
        page.on(
            "request",
            lambda one: one.url.startswith((address, "data:", "blob:")) or heard.append(one.url),
        )
        page.goto(f"{address}/docs")
        page.get_by_text("Score an image.").click()
        page.locator("input[type=file]").set_input_files(tmp_path / "part.png")
        page.get_by_role("button", name="Execute").click()
        answer = page.locator(".live-responses-table .response-col_description pre").first
        answer.wait_for()
        agrees(json.loads(answer.inner_text()), expected[0])
        running.close()
    assert heard == []
    assert server.client.get("/predict").status_code == 405
    assert server.client.get("/etc/passwd").status_code == 404
    assert server.client.post("/shutdown").status_code == 404


def test_a_worker_that_is_killed_is_replaced_and_nothing_hangs(server, expected):
    codes, stop = [], threading.Event()

    def ask(number: int) -> None:
        while not stop.is_set():
            codes.append(server.score(IMAGES[number]).status_code)

    with ThreadPoolExecutor(4) as clients:
        asked = [clients.submit(ask, number) for number in range(4)]
        time.sleep(1)
        os.kill(server.worker(), signal.SIGKILL)
        time.sleep(5)
        server.wait()
        time.sleep(1)
        stop.set()
        for one in asked:
            one.result(60)
    assert set(codes) <= {200, 500, 504}
    assert 200 in codes[4:]  # the other worker went on
    assert server.score(IMAGES[0]).status_code == 200
    assert len(codes) - codes.count(200) <= 8, codes
    agrees(server.score(IMAGES[1]).json(), expected[1])


def test_a_port_in_use_is_said(server, crane):
    outcome = crane("serve", "checkpoint=mini", f"port={server.port}", "accelerator=cpu")
    assert (outcome.code, outcome.out) == (2, "")
    assert f"port={server.port} is in use; choose another port" in outcome.err


def test_sigterm_ends_every_process(server):
    children = server.children()
    assert children
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(30) == 143
    log = server.log.read_text()
    assert "crane: stopped by SIGTERM" in log.splitlines()[-1]
    assert "Traceback" not in log.split("ready: ")[1].split("inference-worker")[0], log
    end = time.monotonic() + 10
    while server.children() and time.monotonic() < end:
        time.sleep(0.1)
    assert server.children() == []
    with pytest.raises(httpx.TransportError):
        server.client.get("/health")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["port=80"], "port must be an integer from 1024 to 65535, not 80"),
        (["host=example.org"], "host must be 127.0.0.1, 0.0.0.0 or ::, not 'example.org'"),
        (["max_queue=0"], "max_queue must be an integer of at least 1, not 0"),
        (["timeout=1", "batch_timeout=2"], "batch_timeout must be below timeout"),
        (["precision=16-mixed", "accelerator=cpu"], "precision=16-mixed needs a GPU"),
        (["checkpoint=nothing.pth"], "nothing.pth"),
    ],
)
def test_what_does_not_fit_is_said_before_anything_starts(crane, overrides, said):
    outcome = crane("serve", "checkpoint=mini", *overrides)
    assert (outcome.code, outcome.out) == (2, "")
    assert said in outcome.err
    assert len(outcome.err.splitlines()) <= 2
