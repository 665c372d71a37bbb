import numpy as np
import pytest
import torch

from crane.cache import CacheFolder, Description
from crane.cache.arrays import EntryWriter, Features, FeatureShape, allocate, finish

SHAPE = FeatureShape(5, (2, 3, 4, 5))


@pytest.fixture
def folder(tmp_path):
    return CacheFolder(tmp_path / "cache")


@pytest.fixture
def description():
    return Description("parts", "/data", "tiny", "float32", "float32", "2026", 1.0, {"a": [1]})


@pytest.fixture
def tokens():
    """Global and local embeddings of six images, as a model gives them."""
    generator = torch.Generator().manual_seed(0)
    patches = torch.randn(2, 6, 12, 5, generator=generator)
    return torch.randn(6, 5, generator=generator), patches


@pytest.fixture
def make(folder, description, tokens):
    """Write an entry of six images, in two batches and not in order."""

    def write(name="0" * 16, dtype="float32", rows=(4, 0, 2, 5, 1, 3)):
        building = folder.building(name)
        allocate(building, 6, SHAPE, dtype)
        writer = EntryWriter(building, dtype)
        global_, patches = tokens
        for part in (rows[:4], rows[4:]):
            if part:
                planes = patches[:, list(part)].transpose(0, 1).unflatten(2, (3, 4))
                writer.write(list(part), global_[list(part)], planes)
        writer.close()
        about = {**vars(description), "dtype": dtype}
        finish(building, folder.place(name), [f"{n}.png" for n in range(6)], Description(**about))
        return folder.find(name)

    return write


@pytest.fixture
def read():
    """All features of an entry as two arrays, in the order of the images."""

    def features(entry):
        opened = Features(entry)
        both = [opened(f"{n}.png") for n in range(6)]
        return tuple(
            np.stack([x.float().numpy() for x in part]) for part in zip(*both, strict=True)
        )

    return features
