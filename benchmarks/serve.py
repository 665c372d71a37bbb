"""`crane serve`: images a second and the slowest answers, for one to eight clients."""

import io
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from urllib.error import URLError
from urllib.request import Request, urlopen

import numpy as np
from PIL import Image

from benchmarks._harness import Claim, Options, Report, say

CLIENTS = (1, 2, 4, 8)
REQUESTS = {False: 320, True: 24}
"""Requests of each measurement, by `Options.small`."""
SIDE = 256
"""Height and width of the images in pixels."""


def run(options: Options) -> Report:
    """Start the command, and ask it with each number of clients, twice in turns."""
    number = REQUESTS[options.small]
    with tempfile.TemporaryDirectory() as folder:
        port = _free_port()
        command = [sys.executable, "-m", "crane", "serve", "checkpoint=mini", f"port={port}"]
        accelerator = "gpu" if options.device == "cuda" else "cpu"
        with subprocess.Popen(
            [*command, f"accelerator={accelerator}"],
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        ) as server:
            try:
                _wait(port, server)
                _asked(port, 8, number // 4)  # a warm-up
                found: dict[int, list[tuple[float, list[float], int]]] = {n: [] for n in CLIENTS}
                for clients in (*CLIENTS, *CLIENTS):
                    found[clients].append(_asked(port, clients, number))
                    say(f"{clients} clients: {found[clients][-1][0]:.3g} images a second")
            finally:
                os.killpg(server.pid, signal.SIGTERM)
    best = {clients: max(rounds) for clients, rounds in found.items()}
    lost = sum(one[2] for rounds in found.values() for one in rounds)
    alone = best[1][0]
    return Report(
        title="Serving",
        text=(
            f"`crane serve checkpoint=mini`, one worker, {number} requests of {SIDE} x {SIDE} "
            "pixels on the loopback address; the faster of two rounds. Clients and server share "
            "the machine. The small model shows what the service itself costs."
        ),
        claims=[
            Claim("serve: requests lost", 0, lost, at_most=True, exactly=True),
            Claim("serve: throughput of 8 clients over 1", 1, best[8][0] / alone, at_most=False),
        ],
        columns=["clients", "images a second", "over 1 client", "median in ms", "p99 in ms"],
        rows=[
            [
                str(clients),
                f"{rate:.3g}",
                f"{rate / alone:.2f}",
                *(f"{1000 * np.percentile(times, share):.0f}" for share in (50, 99)),
            ]
            for clients, (rate, times, _) in best.items()
        ],
    )


def _asked(port: int, clients: int, number: int) -> tuple[float, list[float], int]:
    """Answers a second, the seconds of each, and how many were none."""
    rng = np.random.default_rng(0)
    content = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)).save(content, "jpeg")
    boundary = "crane-benchmark"
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n\r\n'
    body = head.encode() + content.getvalue() + f"\r\n--{boundary}--\r\n".encode()
    kind = f"multipart/form-data; boundary={boundary}"
    request = Request(f"http://127.0.0.1:{port}/predict", body, {"Content-Type": kind})

    def ask(_: None) -> float | None:
        begun = time.perf_counter()
        try:
            with urlopen(request, timeout=60) as response:
                is_scored = "score" in json.load(response)
        except (URLError, ValueError):
            return None
        return time.perf_counter() - begun if is_scored else None

    begun = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        answers = list(pool.map(ask, repeat(None, number)))
    times = [one for one in answers if one is not None]
    return len(times) / (time.perf_counter() - begun), times, number - len(times)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _wait(port: int, server: "subprocess.Popen[bytes]") -> None:
    while True:
        if server.poll() is not None:
            raise RuntimeError(f"the server ended with {server.returncode}")
        try:
            with urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                return
        except OSError:
            time.sleep(0.2)
