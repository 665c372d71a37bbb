"""What is written is what is read, or an error."""

import json
import pickle

import numpy as np
import pytest
import torch

from crane.cache import BrokenEntryError, Entry
from crane.cache.arrays import EntryWriter, Features, FeatureShape, allocate, finish, is_allocated
from crane.cache.entry import checksum as digest
from crane.errors import UsageError


@pytest.mark.parametrize(
    ("dtype", "error"), [("float32", 0), ("float16", 2**-11), ("bfloat16", 2**-8)]
)
def test_features_come_back_by_name(make, read, tokens, dtype, error):
    entry = make(dtype=dtype)
    global_, patches = read(entry)
    np.testing.assert_allclose(global_, tokens[0].numpy(), rtol=error, atol=0)
    wanted = tokens[1].transpose(0, 1).unflatten(2, (3, 4)).numpy()
    np.testing.assert_allclose(patches, wanted, rtol=error, atol=0)
    assert Features(entry)("3.png")[0].dtype == getattr(torch, dtype)
    assert entry.shape == (2, 3, 4, 5)
    assert entry.num_images == len(Features(entry)) == 6


def test_the_stated_size_is_that_on_disk(make):
    entry = make()
    arrays = FeatureShape(5, (2, 3, 4, 5)).num_bytes(6, "float32")
    headers = 3 * 128
    names = (entry.folder / "images.json").stat().st_size
    assert (
        entry.num_bytes == arrays + headers + names + (entry.folder / "entry.json").stat().st_size
    )


def test_an_unknown_image_is_an_error(make):
    with pytest.raises(UsageError, match=r"has no image other\.png"):
        Features(make())("other.png")


def test_loader_workers_open_it_for_themselves(make, tokens):
    features = pickle.loads(pickle.dumps(Features(make())))
    torch.testing.assert_close(features("0.png")[0], tokens[0][0], rtol=0, atol=0)


def test_an_entry_that_is_deleted_stays_readable_for_who_has_it_open(make, folder, tokens):
    features = Features(make())
    assert folder.remove("0" * 16)
    assert folder.find("0" * 16) is None
    torch.testing.assert_close(features("5.png")[0], tokens[0][5], rtol=0, atol=0)


@pytest.mark.parametrize("file", ["global.npy", "patches.npy", "checksums.npy", "images.json"])
def test_a_file_cut_short_is_seen_at_once(make, folder, file):
    path = make().folder / file
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BrokenEntryError, match=file):
        folder.find("0" * 16)


@pytest.mark.parametrize("file", ["checksums.npy", "images.json"])
def test_a_small_file_altered_is_seen_at_once(make, folder, file):
    path = make().folder / file
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(BrokenEntryError, match=f"{file} has been altered"):
        folder.find("0" * 16)


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("global.npy", b"'<f4'", b"'|O8'"),
        ("patches.npy", b"'<f4'", b"'<i4'"),
        ("checksums.npy", b"(6,", b"(7,"),
        ("patches.npy", b"NUMPY", b"NUMPX"),
    ],
)
def test_an_altered_header_is_a_broken_entry(make, folder, file, old, new):
    """Large arrays have no checksum as a whole: their headers are compared with the description."""
    path = make().folder / file
    content = path.read_bytes()
    assert old in content[:128]
    path.write_bytes(content[:128].replace(old, new) + content[128:])
    with pytest.raises(BrokenEntryError):
        folder.find("0" * 16)


@pytest.mark.parametrize("file", ["global.npy", "patches.npy"])
def test_an_array_altered_is_seen_when_its_row_is_read(make, file):
    entry = make()
    path = entry.folder / file
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    features = Features(entry)
    features("0.png")
    with pytest.raises(UsageError, match=r"the cached features of 5\.png in .* are damaged"):
        features("5.png")


def spoil(entry):
    content = bytearray((entry.folder / "patches.npy").read_bytes())
    content[-1] ^= 1
    (entry.folder / "patches.npy").write_bytes(bytes(content))


def test_a_bad_row_marks_the_entry_so_that_the_next_run_computes_it_again(make, folder):
    entry = make()
    spoil(entry)
    features = Features(entry)
    hint = f"the next run computes them again, or `crane cache prune {entry.id}` removes"
    with pytest.raises(UsageError, match=hint):
        features("5.png")
    with pytest.raises(BrokenEntryError, match=r"the features of 5\.png are damaged"):
        folder.find(entry.id)
    assert folder.find_whole(entry.id) is None
    again = make(dtype="float16")
    with pytest.raises(UsageError, match=r"the cached features of 5\.png"):
        features("5.png")
    assert folder.find(entry.id) == again, "computed again, yet marked"


def test_a_bad_row_that_cannot_be_marked_stops_a_run_all_the_same(make, monkeypatch):
    entry = make()
    spoil(entry)

    def fail(*args, **kwargs):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("pathlib.Path.write_text", fail)
    with pytest.raises(UsageError, match=r"are damaged; `crane cache prune 0+` removes"):
        Features(entry)("5.png")


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"checksum": 1}', "null"])
def test_a_description_that_is_none_is_a_broken_entry(make, folder, content):
    (make().folder / "entry.json").write_text(content)
    with pytest.raises(BrokenEntryError):
        folder.find("0" * 16)


def test_a_description_altered_is_a_broken_entry(make, folder):
    path = make().folder / "entry.json"
    content = json.loads(path.read_text())
    content["description"]["data_set"] = "others"
    path.write_text(json.dumps(content))
    with pytest.raises(BrokenEntryError, match=r"entry\.json has been altered"):
        folder.find("0" * 16)


def test_missing_rows_are_no_entry(make, folder):
    with pytest.raises(UsageError, match="2 of 6 images did not arrive"):
        make(rows=(0, 1, 2, 3))
    assert folder.find("0" * 16) is None


def test_others_wait_until_every_array_is_there(folder, monkeypatch):
    """Another process may look at any moment: the folder is there long before its arrays."""
    building, seen = folder.building("0" * 16), []
    make = np.lib.format.open_memmap

    def watched(*args, **kwargs):
        seen.append(is_allocated(building))
        array = make(*args, **kwargs)
        seen.append(is_allocated(building))
        return array

    monkeypatch.setattr(np.lib.format, "open_memmap", watched)
    assert not is_allocated(building)
    allocate(building, 2, FeatureShape(3, (1, 2, 2, 3)), "float32")
    assert seen == [False] * 6
    assert is_allocated(building)
    EntryWriter(building, "float32").close()


def test_rows_of_another_size_are_refused(folder, description):
    building = folder.building("0" * 16)
    allocate(building, 2, FeatureShape(3, (1, 2, 2, 3)), "float32")
    writer = EntryWriter(building, "float32")
    with pytest.raises(AssertionError):
        writer.write([0], torch.zeros(1, 3), torch.zeros(1, 1, 5, 1, 3))
    writer.close()
    with pytest.raises(UsageError):
        finish(building, folder.place("0" * 16), ["a", "b"], description)


def test_an_entry_states_how_many_threads_computed_it(make, description):
    entry = make()
    assert entry.description.num_threads is None, "of older entries it is not known"
    stated = json.loads((entry.folder / "entry.json").read_text())
    del stated["description"]["num_threads"]
    content = {key: value for key, value in stated.items() if key != "checksum"}
    (entry.folder / "entry.json").write_text(json.dumps({**content, "checksum": digest(content)}))
    assert Entry.read(entry.folder).description == description
