"""What tests may count on: no network, one thread, small data sets, commands in this process."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["WANDB_MODE"] = "offline"
os.environ.setdefault("OMP_NUM_THREADS", "1")

import atexit
import gc
import logging
import shutil
import signal
import socket
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import quick_hydra

quick_hydra.install()
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as shells start jobs in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)

# No test is to find what another session left; within one, tests share what they compute, also
# those of several processes (pytest-xdist), which inherit the folder from the first one.
if "CRANE_TESTS_CACHE" not in os.environ:
    os.environ["CRANE_TESTS_CACHE"] = tempfile.mkdtemp(prefix="crane-cache-")
    atexit.register(shutil.rmtree, os.environ["CRANE_TESTS_CACHE"], ignore_errors=True)
os.environ["CRANE_CACHE"] = os.environ["CRANE_TESTS_CACHE"]

LOCAL = ("localhost", "127.0.0.1", "::1")


def pytest_collection_finish() -> None:
    """Exempt everything imported so far from garbage collection, which is then much faster."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def _no_network() -> Iterator[None]:
    """Refuse every address but this machine's own."""
    connect, look_up = socket.socket.connect, socket.getaddrinfo

    def local_connect(self, address):
        if self.family != socket.AF_UNIX and address[0] not in LOCAL:
            raise OSError(f"tests have no network, yet something connects to {address}")
        return connect(self, address)

    def local_look_up(host, *args, **kwargs):
        if host not in (*LOCAL, None, ""):
            raise OSError(f"tests have no network, yet something looks up {host}")
        return look_up(host, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", local_connect)
        patch.setattr(socket, "getaddrinfo", local_look_up)
        yield


def write_data_set(
    root: Path, classes: Sequence[str], num_normal: int, num_anomalous: int, *, masks: bool = True
) -> Path:
    """Flat grey images in MVTec AD's layout; anomalous ones have a white rectangle."""
    rng = np.random.default_rng(sum(map(ord, root.name)))
    for name in classes:
        good, bad = root / name / "test" / "good", root / name / "test" / "hole"
        truth = root / name / "ground_truth" / "hole"
        for folder in (good, bad, truth) if masks else (good, bad):
            folder.mkdir(parents=True)
        for number in range(num_normal):
            pixels = rng.integers(90, 110, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(good / f"{number:03d}.png")
        for number in range(num_anomalous):
            pixels = rng.integers(90, 110, (40, 40, 3), dtype=np.uint8)
            mask = np.zeros((40, 40), dtype=np.uint8)
            y, x = rng.integers(2, 25, 2)
            pixels[y : y + 12, x : x + 10] = 250
            mask[y : y + 12, x : x + 10] = 255
            Image.fromarray(pixels).save(bad / f"{number:03d}.png")
            if masks:
                Image.fromarray(mask).save(truth / f"{number:03d}_mask.png")
    return root


@pytest.fixture(scope="session")
def data_sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with four small data sets.

    `alpha` and `beta` have two classes, `gamma` one and an odd number of images, `plain` no masks.
    """
    root = tmp_path_factory.mktemp("data_sets")
    write_data_set(root / "alpha", ("bolt", "nut"), 3, 3)
    write_data_set(root / "beta", ("candle", "dice"), 2, 3)
    write_data_set(root / "gamma", ("tile",), 3, 4)
    write_data_set(root / "plain", ("bracket",), 3, 3, masks=False)
    return root


@pytest.fixture(scope="session")
def use(data_sets: Path) -> Callable[..., list[str]]:
    """Overrides that put small data sets in the place `source` or `targets`."""

    def overrides(place: str, *names: str, folder: Path = data_sets) -> list[str]:
        index = "_target_: crane.data.index_folder, split: test, mask_threshold: 0"
        added = [f"+{place}.{n}={{{index}, name: {n}, root: '{folder / n}'}}" for n in names]
        return [f"dataset@{place}=[]", *added]

    return overrides


@dataclass(frozen=True)
class Outcome:
    """What a command left on the terminal."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def tiny() -> tuple[str, ...]:
    """Overrides for a run of a second on the small data sets."""
    return (
        "backbone=tiny",
        "trainer=cpu",
        "image_size=56",
        "trainer.max_epochs=1",
        "trainer.enable_progress_bar=false",
        "data.num_workers=0",
        "data.batch_size=4",
        "overlay.num_anomalous=1",
        "overlay.tile=60",
    )


@pytest.fixture
def composed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compose each choice of groups that is typed only once."""
    from compositions import composed_once
    from crane.cli import validation

    monkeypatch.setattr(
        validation, "compose", lambda command, chosen: composed_once(command, *chosen).copy()
    )


@pytest.fixture
def crane(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., Outcome]]:
    """Type a command, in this process and in an empty folder.

    What commands change for the whole process (logging, warnings, Hydra's own state) is put back.
    """
    from hydra.core.hydra_config import HydraConfig

    from crane.cli.main import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    environment = dict(os.environ)
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level

    def type_in(*arguments: object) -> Outcome:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["crane", *map(str, arguments)])
        with warnings.catch_warnings():
            try:
                main()
                code = 0
            except SystemExit as leaving:
                code = int(leaving.code or 0)
        out, err = capsys.readouterr()
        return Outcome(code, out, err)

    yield type_in
    HydraConfig.instance().cfg = None
    for handler in root.handlers[:]:
        root.removeHandler(handler)
    root.handlers.extend(handlers)
    root.setLevel(level)
    os.environ.clear()
    os.environ.update(environment)
