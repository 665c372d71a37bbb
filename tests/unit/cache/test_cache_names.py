"""What makes another entry, and what does not."""

import os
from pathlib import Path

import pytest

from crane.cache import Digests, code_digest, entry_id, images_digest, tower_facts
from crane.errors import UsageError


def test_code_counts_and_its_comments_do_not(tmp_path):
    folder = tmp_path / "package"
    folder.mkdir()
    file = folder / "attention.py"
    file.write_text("def scale(x):\n    return 2 * x\n")
    before = code_digest([folder])
    file.write_text('"""New."""\n\n\ndef scale(x):\n    """More."""\n    return 2*x  # twice\n')
    os.utime(file, (1, 1))
    assert code_digest([folder]) == before
    file.write_text("def scale(x):\n    return 3 * x\n")
    os.utime(file, (2, 2))
    assert code_digest([folder]) != before


def test_digests_are_of_contents_and_read_once(tmp_path, monkeypatch):
    files = [tmp_path / name for name in ("a.png", "b.png", "c.png")]
    for file, content in zip(files, (b"one", b"two", b"one"), strict=True):
        file.write_bytes(content)
    digests = Digests(tmp_path / "memory")
    first = digests.of(tmp_path, files)
    assert first[0] == first[2] != first[1]
    read = []
    monkeypatch.setattr("crane.cache.keys.sha256", lambda file: read.append(file) or "new")
    assert digests.of(tmp_path, files) == first
    assert read == []
    files[1].write_bytes(b"other")
    assert digests.of(tmp_path, files) == [first[0], "new", first[2]]
    assert read == [files[1]]


@pytest.mark.parametrize(
    "content", ["", "[]", "{", '{"FILE": 5}', '{"FILE": [3, 1]}', '{"FILE": [3, 1, 5]}']
)
def test_a_memory_that_cannot_be_read_is_no_loss(tmp_path, content):
    file = tmp_path / "a.png"
    file.write_bytes(b"one")
    digests = Digests(tmp_path / "memory")
    first = digests.of(tmp_path, [file])
    memory = next((tmp_path / "memory").iterdir())
    memory.write_text(content.replace("FILE", str(file)))
    assert digests.of(tmp_path, [file]) == first


def test_a_memory_that_cannot_be_written_is_no_loss(tmp_path):
    file = tmp_path / "a.png"
    file.write_bytes(b"one")
    (tmp_path / "taken").write_text("")
    wanted = Digests(tmp_path / "memory").of(tmp_path, [file])
    for folder in (Path("/proc/x"), tmp_path / "taken" / "memory"):
        assert Digests(folder).of(tmp_path, [file]) == wanted


def test_a_file_that_has_gone_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"gone\.png"):
        Digests(tmp_path / "memory").of(tmp_path, [tmp_path / "gone.png"])


def test_images_count_in_any_order_and_by_name():
    assert images_digest(["a", "b"], ["1", "2"]) == images_digest(["b", "a"], ["2", "1"])
    assert images_digest(["a", "b"], ["1", "2"]) != images_digest(["a", "b"], ["2", "1"])


def test_weights_count_by_content(tmp_path):
    def facts(**changes):
        settings = {"architecture": "x", "weights": "random", "seed": 1, "weights_dir": "a"}
        return tower_facts({**settings, **changes}, lambda root, files: [f.name for f in files])

    assert facts() == facts(weights_dir="elsewhere", allow_download=False)
    assert facts() != facts(seed=2)
    assert facts() != facts(architecture="y")
    file = tmp_path / "weights.pt"
    file.write_bytes(b"one")
    assert facts(weights=str(file))["weights"] == ["weights.pt"]
    assert facts(weights=str(file)) == facts(weights=str(file), seed=2)


def test_a_tower_of_ones_own_needs_no_weights():
    """A guide without weights, as in CONTRIBUTING.md, and one with weights and no seed."""
    own = {"_target_": "crane.guides.edges.Edges", "size": 14}
    assert tower_facts(own, lambda root, files: []) == own
    assert "seed" not in tower_facts({"weights": "gone.pt"}, lambda root, files: [])


def test_names_follow_from_facts():
    assert entry_id({"a": 1}) == entry_id({"a": 1})
    assert entry_id({"a": 1}) != entry_id({"a": 2})
    assert len(entry_id({})) == 16
