"""`crane cache list` and `crane cache prune`."""

import os
import time

import pytest
import torch

from crane.cache import CacheFolder, Description
from crane.cache.arrays import EntryWriter, Features, FeatureShape, allocate, finish
from crane.errors import UsageError

DAY = 86400


@pytest.fixture
def folder(tmp_path):
    """Three entries, used today, ten and a hundred days ago; the older the larger."""
    folder = CacheFolder(tmp_path / "features")
    for digit, days, num_images in (("1", 0, 10), ("2", 10, 20), ("3", 100, 30)):
        name = digit * 16
        allocate(folder.building(name), num_images, FeatureShape(32, (1, 4, 4, 32)), "float32")
        writer = EntryWriter(folder.building(name), "float32")
        zeros = torch.zeros(num_images, 32), torch.zeros(num_images, 1, 4, 4, 32)
        writer.write(range(num_images), *zeros)
        writer.close()
        about = Description(
            f"set {digit}", "/d", "ViT-X, vv, 56 px", "float32", "float32", "", 1.0, {}
        )
        names = [str(n) for n in range(num_images)]
        finish(folder.building(name), folder.place(name), names, about)
        then = time.time() - days * DAY
        os.utime(folder.place(name) / "used", (then, then))
    return folder


@pytest.fixture
def cache(crane, folder):
    def typed(*words):
        outcome = crane("cache", *words, f"folder={folder.path}")
        left = {name[0] for name, _ in folder.entries()}
        return outcome, left

    return typed


def test_list(cache):
    outcome, left = cache("list")
    assert outcome.code == 0
    for shown in ("1" * 16, "set 2", "ViT-X, vv, 56 px, float32", "10 days ago", "3 entries"):
        assert shown in outcome.out
    assert outcome.out.index("1" * 16) < outcome.out.index("2" * 16) < outcome.out.index("3" * 16)
    assert left == {"1", "2", "3"}


def test_an_empty_cache_is_said_to_be_empty(crane, tmp_path):
    outcome = crane("cache", "list", f"folder={tmp_path / 'none'}")
    assert outcome.code == 0
    assert "0 entries" in outcome.out
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ((), {"1", "2", "3"}),
        (("2" * 16,), {"1", "3"}),
        (("unused_days=30",), {"1", "2"}),
        (("unused_days=30", "1" * 16), {"2"}),
        (("max_gb=0.00005",), {"1"}),
        (("max_gb=0",), set()),
        (("max_gb=1",), {"1", "2", "3"}),
    ],
)
def test_prune(cache, words, wanted):
    outcome, left = cache("prune", *words)
    assert outcome.code == 0
    assert left == wanted
    assert outcome.out.count("removed") == 3 - len(wanted)
    assert ("nothing to remove" in outcome.out) == (len(wanted) == 3)


def test_prune_takes_the_damaged_and_the_interrupted_along(cache, folder):
    (folder.place("2" * 16) / "patches.npy").unlink()
    folder.building("4" * 16).mkdir()
    assert "damaged" in cache("list")[0].out
    outcome, left = cache("prune")
    assert left == {"1", "3"}
    assert "removed 1 leftover of" in outcome.out


@pytest.mark.parametrize("words", [[], ["2" * 16]])
def test_an_entry_with_a_bad_row_is_shown_and_removed(cache, folder, words):
    path = folder.place("2" * 16) / "patches.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(UsageError, match=f"`crane cache prune {'2' * 16}` removes"):
        Features(folder.find("2" * 16))("19")
    outcome, _ = cache("list")
    assert f"damaged {'2' * 16}: the features of 19 are damaged" in outcome.out
    outcome, left = cache("prune", *words)
    assert outcome.code == 0
    assert left == {"1", "3"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("list", "unused_day=1"), "unused_days"),
        (("prune", "5555"), "entries: unknown entry '5555'; choose one of 1111"),
        (("prune", "max_gb=-1"), "max_gb must be a number of at least 0, or null, not -1"),
        (("prune", "max_gb=nan"), "max_gb must be a number of at least 0, or null, not nan"),
        (
            ("prune", "unused_days=x"),
            "unused_days must be a number of at least 0, or null, not 'x'",
        ),
        (("prune", "max_gb=[1]"), "max_gb must be a number of at least 0, or null, not [1]"),
        (("wipe",), "unknown action 'wipe'; type crane cache list | prune"),
        (("action=wipe",), "unknown action 'wipe'; choose one of list, prune"),
        ((), "an action is missing; type crane cache list | prune"),
    ],
)
def test_mistakes(cache, words, said):
    outcome, left = cache(*words)
    assert outcome.code == 2
    assert said in outcome.err
    assert left == {"1", "2", "3"}
