"""The clocks and scales of the benchmarks."""

import os
from pathlib import Path

import pytest
import torch

from benchmarks._harness import Options, fastest, isolated, peak_allocated, peak_memory
from benchmarks._runs import make_images
from crane.data import index_folder
from processes import own_pid

pytestmark = pytest.mark.long

MEGABYTE = 1 << 20


def test_work_is_isolated_in_a_new_process_unless_it_is_a_miniature(tmp_path):
    here = os.getpid()
    assert isolated(own_pid, Options("cpu", small=True, output=tmp_path)) == here
    assert isolated(own_pid, Options("cpu", small=False, output=tmp_path)) != here


def test_allocations_are_counted_exactly_and_those_before_are_not():
    kept = torch.zeros(8 * MEGABYTE // 4)

    def work():
        first = torch.zeros(4 * MEGABYTE // 4)
        second = first + 1  # two at once
        del first
        third = second + 1  # two at once
        return third + kept[0]

    assert peak_allocated(work) in range(8 * MEGABYTE, 13 * MEGABYTE)
    assert peak_allocated(lambda: torch.zeros(4 * MEGABYTE // 4)) == 4 * MEGABYTE


def test_peak_memory_is_of_this_process():
    before = peak_memory()
    assert before > 50 * MEGABYTE
    block = torch.ones((before + 100 * MEGABYTE) // 4)
    assert peak_memory() >= before + 90 * MEGABYTE
    del block


def test_works_take_turns_after_a_warm_up():
    calls = []
    works = {name: (lambda name=name: calls.append(name)) for name in "ab"}
    seconds = fastest(works, repeats=2)
    assert calls == ["a", "b"] * 3
    assert set(seconds) == {"a", "b"}


def test_images_are_half_anomalous_and_further_names_are_of_the_same_files(tmp_path):
    folder = make_images(tmp_path / "images", 10, 28, num_distinct=4)
    index = index_folder("images", folder, "test", mask_threshold=0)
    assert [sample.label for sample in index.samples].count(1) == 5
    assert sum(sample.mask is not None for sample in index.samples) == 5
    names = sorted(p for p in Path(folder).rglob("*.png") if "ground_truth" not in p.parts)
    assert len({path.stat().st_ino for path in names}) == 4
