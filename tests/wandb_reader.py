"""Reads what W&B wrote offline: a leveldb log of its own protobuf records."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2

BLOCK = 32768
HEADER = 7
"""Bytes before the first record, and before each chunk of one: crc (4), length (2), kind (1)."""
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def records(run: Path) -> Iterator["wandb_internal_pb2.Record"]:
    """Every record of an offline run's folder."""
    (file,) = run.glob("*.wandb")
    data, at, parts = file.read_bytes(), HEADER, b""
    while at + HEADER <= len(data):
        left = BLOCK - at % BLOCK
        if left < HEADER:
            at += left
            continue
        length, kind = struct.unpack("<HB", data[at + 4 : at + HEADER])
        chunk = data[at + HEADER : at + HEADER + length]
        at += HEADER + length
        parts = chunk if kind in (FULL, FIRST) else parts + chunk
        if kind in (FULL, LAST):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            yield record


def logged(run: Path) -> dict[str, Any]:
    """The last value of every key that was logged; tables and pictures are dictionaries."""
    values: dict[str, Any] = {}
    for record in records(run):
        if record.WhichOneof("record_type") != "history":
            continue
        for item in record.history.item:
            first, *below = list(item.nested_key) or [item.key]
            place, name = values, first
            for deeper in below:
                place, name = place.setdefault(name, {}), deeper
            place[name] = json.loads(item.value_json)
    return values
