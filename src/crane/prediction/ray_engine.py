"""`crane predict engine=ray`: the parts of a prediction on the machines of a Ray cluster.

Processes on CPU cores read and resize images; actors, one for each GPU, hold the model and write
each part as `engine=local` does, with the same names and rows. A part is written whole or not at
all: a worker that dies costs the parts in its hands, which others take, and either engine resumes
what the other began. Every machine needs the folder of outputs, and the images by the same paths.
"""

import logging
import os
import pickle
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any
from urllib.parse import urlsplit

import torch

from crane.errors import UsageError
from crane.prediction.image_scoring import (
    Detector,
    ImageFiles,
    LoadOptions,
    ReadBatch,
    score_batches,
)
from crane.prediction.outputs import OutputWriter
from crane.prediction.table import Row, ScoreTable

THREADS = 4
"""Most threads of an actor without a GPU; each actor has a model of its own in memory."""


@dataclass(frozen=True)
class PartReader:
    """Reads the images of a part, in a process on a CPU core."""

    loading: LoadOptions

    def __call__(self, part: Mapping[str, Any]) -> dict[str, Any]:
        """A part with its images, resized and in batches; what Ray carries is bytes."""
        batches = map(_packed, self.batches(part["paths"]))
        return {"number": part["number"], "batches": pickle.dumps(list(batches))}

    def batches(self, paths: Sequence[str]) -> Iterator[ReadBatch]:
        """Images in batches."""
        files, rest = ImageFiles(self.loading), iter(paths)
        while batch := list(islice(rest, self.loading.batch_size)):
            yield files.collate([files[path] for path in batch])


@dataclass(frozen=True)
class PartWriter:
    """Scores the images of parts and writes them; each process has one, with a model of its own."""

    load: Callable[[], Detector]
    """Loads the model to the device of the process that calls it."""
    device: torch.device
    """What each model computes on."""
    on_error: str
    """What an image that cannot be read does."""
    table: ScoreTable
    """Where rows go."""
    outputs: OutputWriter
    """Writes pictures."""

    def written(self, detector: Detector, number: int, batches: Iterable[ReadBatch]) -> list[Row]:
        """Write a part; gives its rows."""
        scored = score_batches(
            detector,
            batches,
            self.on_error,
            device=self.device,
            with_maps=bool(self.outputs.options.pictures),
        )
        rows = list(self.outputs.rows(scored))
        self.table.write(number, rows)
        return [one.row for one in rows]


def write_parts_on_ray(
    parts: Sequence[tuple[int, list[str]]], loading: LoadOptions, writer: PartWriter
) -> Iterator[list[Row]]:
    """Write parts on the cluster that RAY_ADDRESS names, or else on this machine.

    Args:
        parts: Their numbers, and the paths of their images.
        loading: How images are read.
        writer: What scores and writes them.

    Yields:
        The rows of a part once it is written; parts come in any order.

    Raises:
        UsageError: As `score_images` and `OutputWriter.rows`; or there is no cluster, or none with
            a GPU although one is wanted.
    """
    import ray

    with _cluster():
        devices, needs, threads, readers = _shares(writer.device)
        pool = ray.data.ActorPoolStrategy(min_size=devices, max_size=devices)
        items = [{"number": number, "paths": paths} for number, paths in parts]
        reader = PartReader(loading)
        rows_of = ray.data.from_items(items, override_num_blocks=len(items))
        if loading.image_size is not None:  # images at their own size stay where they are read
            rows_of = rows_of.map(reader, num_cpus=0.5, concurrency=readers)
        results = rows_of.map(
            _Actor, fn_constructor_args=(writer, reader, threads), compute=pool, **needs
        )
        for result in results.iter_rows():
            rows, mistake = pickle.loads(result["result"])
            if mistake is not None:
                raise mistake
            yield rows


def _shares(device: torch.device) -> tuple[int, dict[str, float], int | None, int | None]:
    """How many actors, what each reserves, its threads, and how many processes read.

    Without GPUs, actors compute on all cores, and half as many processes read in between.

    Raises:
        UsageError: The cluster has no cores, or no GPU although one is wanted.
    """
    import ray

    found = ray.cluster_resources()
    if not found.get("CPU"):
        raise UsageError("no machine of the Ray cluster has --num-cpus to read", key="engine")
    if device.type == "cuda":
        if not found.get("GPU"):
            raise UsageError("the Ray cluster has no GPU; use accelerator=cpu", key="accelerator")
        return int(found["GPU"]), {"num_gpus": 1}, None, None
    cores = [node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]]
    threads = int(max(1, min([THREADS, *(number // 2 for number in cores if number)])))
    most = int(found["CPU"])
    return max(1, most // threads), {"num_cpus": threads / 2}, threads, max(1, most // 2)


class _Actor:
    """What Ray starts in a process of its own, and starts again if that process dies."""

    def __init__(self, writer: PartWriter, reader: PartReader, threads: int | None) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        self.writer, self.reader, self.detector = writer, reader, writer.load()

    def __call__(self, part: Mapping[str, Any]) -> dict[str, Any]:
        rows: list[Row] = []
        mistake = None
        batches: Iterable[ReadBatch]
        try:
            if "batches" in part:
                batches = map(_unpacked, pickle.loads(part["batches"]))
            else:
                batches = self.reader.batches(part["paths"])
            rows = self.writer.written(self.detector, int(part["number"]), batches)
        except UsageError as error:  # returned, since Ray would try again what raises
            mistake = error
        return {"result": pickle.dumps((rows, mistake))}


def _packed(batch: ReadBatch) -> ReadBatch:
    """The batch with pixels of 8 bits, if they are those of an image: a quarter of the bytes."""
    short = (batch.pixels * 255).round().to(torch.uint8)
    return batch._replace(pixels=short) if torch.equal(_unit(short), batch.pixels) else batch


def _unpacked(batch: ReadBatch) -> ReadBatch:
    is_short = batch.pixels.dtype == torch.uint8
    return batch._replace(pixels=_unit(batch.pixels)) if is_short else batch


def _unit(pixels: torch.Tensor) -> torch.Tensor:
    return pixels.float() / 255


@contextmanager
def _cluster() -> Iterator[None]:
    """Join the cluster that is there, or start one here that ends with the prediction.

    Raises:
        UsageError: RAY_ADDRESS names a cluster that does not answer.
    """
    import ray

    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    address = os.environ.get("RAY_ADDRESS")
    try:
        if address is not None and ":" in address:  # Ray itself waits for minutes
            parts = urlsplit(address if "://" in address else f"ray://{address}")
            socket.create_connection((parts.hostname, parts.port), timeout=10).close()
        ray.init(
            address or "local",
            include_dashboard=None if address else False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except (ConnectionError, OSError, ValueError) as error:
        missing = f"no Ray cluster answers at RAY_ADDRESS={address}"
        where = missing if address else "a Ray cluster cannot be started here"
        raise UsageError(f"{where}: {str(error).splitlines()[0]}", key="engine") from error
    ray.data.DataContext.get_current().enable_progress_bars = False  # ours counts images
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        yield
    finally:
        ray.shutdown()
