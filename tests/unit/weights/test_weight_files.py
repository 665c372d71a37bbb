import hashlib
import logging
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import huggingface_hub.constants
import pytest
import torch

from crane.errors import UsageError
from crane.files import sha256
from crane.weights import (
    CATALOGUE,
    MISSING,
    PRESENT,
    WRONG_CHECKSUM,
    find_weights,
    weight_status,
    weights_needed,
)

CONTENT = b"weights" * 300_000  # more than one block of the streamed checksum
CLIP = "ViT-L-14-336/openai"
TIMM = "timm/vit_base_patch8_224.dino"


@pytest.fixture
def published(monkeypatch, tmp_path):
    """A published file whose address can be reached without a network."""
    source = tmp_path / "server" / "clip.pt"
    source.parent.mkdir()
    source.write_bytes(CONTENT)
    digest = hashlib.sha256(CONTENT).hexdigest()
    entry = replace(
        CATALOGUE[CLIP], name="test/tag", files=("clip.pt",), url=source.as_uri(), sha256=digest
    )
    monkeypatch.setitem(CATALOGUE, "test/tag", entry)
    return entry


def put(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(CONTENT)
    return path


def test_a_path_and_a_file_of_the_folder_are_found(tmp_path):
    own = put(tmp_path / "elsewhere" / "mine.pt")
    assert find_weights(own, tmp_path, allow_download=False) == own
    in_folder = put(tmp_path / "w" / "mine.pt")
    assert find_weights("mine.pt", tmp_path / "w", allow_download=False) == in_folder
    in_home = put(Path("~/w/mine.pt").expanduser())
    assert find_weights("~/w/mine.pt", tmp_path, allow_download=False) == in_home
    assert find_weights("mine.pt", "~/w", allow_download=False) == in_home


@pytest.fixture
def clip_is_content(monkeypatch):
    """Let the published CLIP be the file that `put` writes."""
    digest = hashlib.sha256(CONTENT).hexdigest()
    monkeypatch.setitem(CATALOGUE, CLIP, replace(CATALOGUE[CLIP], sha256=digest))


@pytest.mark.usefixtures("clip_is_content")
@pytest.mark.parametrize("index", range(3))
def test_each_file_name_of_an_entry_is_found_in_the_folder(index, tmp_path):
    placed = put(tmp_path / CATALOGUE[CLIP].files[index])
    assert find_weights(CLIP, tmp_path, allow_download=False) == placed


@pytest.mark.usefixtures("clip_is_content")
def test_caches_of_the_libraries_are_found(tmp_path):
    hub = Path(huggingface_hub.constants.HF_HUB_CACHE) / "models--timm--vit_base_patch8_224.dino"
    in_hub = put(hub / "snapshots" / "abc" / "model.safetensors")
    (hub / "refs").mkdir()
    (hub / "refs" / "main").write_text("abc")
    assert find_weights(TIMM, tmp_path, allow_download=False) == in_hub

    file = "dinov2_vitb14_reg4_pretrain.pth"
    in_torch = put(Path(torch.hub.get_dir()) / "checkpoints" / file)
    assert find_weights(file, tmp_path, allow_download=False) == in_torch

    in_clip = put(Path("~/.cache/clip/ViT-L-14-336px.pt").expanduser())
    assert find_weights(CLIP, tmp_path, allow_download=False) == in_clip
    in_folder = put(tmp_path / "ViT-L-14-336px.pt")
    assert find_weights(CLIP, tmp_path, allow_download=False) == in_folder, "the folder comes first"


@pytest.mark.parametrize("name", [name for name, one in CATALOGUE.items() if one.embedded])
def test_what_the_package_carries_is_always_there(name, tmp_path):
    found = find_weights(name, tmp_path, allow_download=False)
    assert found.is_file()
    assert sha256(found) == CATALOGUE[name].sha256


@pytest.mark.parametrize("name", [name for name, one in CATALOGUE.items() if not one.embedded])
def test_missing_and_not_allowed_says_what_to_fetch_from_where_to_where(name, tmp_path):
    entry = CATALOGUE[name]
    with pytest.raises(UsageError) as caught:
        find_weights(name, tmp_path, allow_download=False, key="guide.features.weights")
    message = str(caught.value)
    wanted = [str(tmp_path / entry.files[0]), entry.url or entry.hub_repo, entry.licence]
    wanted += [entry.sha256 or "sha256 not published", f"{entry.size_mb} MB"]
    wanted += ["guide.features.weights", "allow_download=true"]
    assert [part for part in wanted if part not in message] == []


@pytest.mark.parametrize("name", [CLIP, TIMM])
def test_allowed_but_offline_is_the_same_error_with_the_reason(name, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    with pytest.raises(UsageError, match="the download failed") as caught:
        find_weights(name, tmp_path, allow_download=True)
    assert CATALOGUE[name].files[0] in str(caught.value)
    assert CATALOGUE[name].source in caplog.text
    assert f"{CATALOGUE[name].size_mb} MB" in caplog.text
    assert not any(path.is_file() and path.stat().st_size for path in tmp_path.glob("*.*"))


def test_an_unknown_name_lists_the_choices(tmp_path):
    with pytest.raises(
        UsageError, match=r"backbone\.x: nope\.pt is neither.*names: random, openai"
    ):
        find_weights("nope.pt", tmp_path, True, key="backbone.x", choices=["random", "openai"])


def test_an_allowed_download_lands_in_the_folder_and_is_announced(published, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    folder = tmp_path / "new" / "folder"
    assert find_weights("test/tag", folder, allow_download=True) == folder / "clip.pt"
    assert (folder / "clip.pt").read_bytes() == CONTENT
    assert published.url in caplog.text


def test_a_download_with_another_checksum_is_refused(published, monkeypatch, tmp_path):
    monkeypatch.setitem(CATALOGUE, "test/tag", replace(published, sha256="0" * 64))
    with pytest.raises(UsageError, match="invalid hash value"):
        find_weights("test/tag", tmp_path, allow_download=True)
    assert not (tmp_path / "clip.pt").exists()


@pytest.mark.parametrize("allowed", [False, True])
def test_a_file_with_another_checksum_is_not_used(published, tmp_path, allowed):
    path = put(tmp_path / "clip.pt")
    path.write_bytes(b"half")
    with pytest.raises(UsageError) as caught:
        find_weights("test/tag", tmp_path, allowed, key="backbone.model.weights")
    for part in (published.sha256, sha256(path), str(path), "delete that file", published.source):
        assert part in str(caught.value)
    assert find_weights(path, tmp_path, allowed) == path, "a path is a file of the user's own"
    path.unlink()
    assert find_weights("test/tag", tmp_path, allow_download=True).read_bytes() == CONTENT


def test_a_failed_download_without_a_word_is_told_by_its_kind(published, monkeypatch, tmp_path):
    def fail(*args, **kwargs):
        raise OSError

    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    with pytest.raises(UsageError, match="the download failed, OSError"):
        find_weights("test/tag", tmp_path, allow_download=True)


def test_a_repository_without_safetensors_gives_its_other_file(monkeypatch, tmp_path):
    def hub(repo, file, local_dir):
        if file.endswith(".safetensors"):
            raise FileNotFoundError(file)
        return str(put(local_dir / file))

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hub)
    path = find_weights("ViT-H-14/laion2b_s32b_b79k", tmp_path, allow_download=True)
    assert path == tmp_path / "CLIP-ViT-H-14-laion2B-s32B-b79K" / "open_clip_pytorch_model.bin"
    assert find_weights("ViT-H-14/laion2b_s32b_b79k", tmp_path, allow_download=False) == path


def test_streamed_checksum(tmp_path):
    assert sha256(put(tmp_path / "x")) == hashlib.sha256(CONTENT).hexdigest()


def test_status_tells_present_missing_and_wrong_apart(published, tmp_path):
    missing = weight_status("test/tag", tmp_path)
    assert (missing.state, missing.path, missing.size, missing.verified) == (
        MISSING,
        None,
        None,
        False,
    )
    path = put(tmp_path / "clip.pt")
    present = weight_status("test/tag", tmp_path)
    assert (present.state, present.path, present.size) == (PRESENT, path, len(CONTENT))
    assert present.verified
    assert present.entry is published
    path.write_bytes(b"half")
    assert weight_status("test/tag", tmp_path).state == WRONG_CHECKSUM
    unverified = weight_status("test/tag", tmp_path, verify=False)
    assert (unverified.state, unverified.verified) == (PRESENT, False)


def test_status_of_a_hub_conversion_is_not_held_against_the_original_checksum(tmp_path):
    put(tmp_path / CATALOGUE[CLIP].files[1])
    status = weight_status(CLIP, tmp_path)
    assert (status.state, status.verified) == (PRESENT, False)


def test_status_of_own_files_and_of_code(tmp_path):
    own = put(tmp_path / "mine.pt")
    assert weight_status(own, tmp_path).entry is None
    assert weight_status(tmp_path / "other.pt", tmp_path).state == MISSING
    code = "facebookresearch/dinov2:b8931f7bf91576930313be2c6d6af376033b35f0"
    assert weight_status(code, tmp_path).state == MISSING
    folder = Path(torch.hub.get_dir()) / code.replace("/", "_").replace(":", "_")
    folder.mkdir(parents=True)
    assert weight_status(code, tmp_path).state == MISSING, "an empty folder is no code"
    (folder / "hubconf.py").touch()
    assert weight_status(code, tmp_path).path == folder


def test_needed_files_of_a_whole_configuration():
    config = {
        "weights_dir": "~/w",
        "backbone": {"model": {"architecture": "ViT-L-14-336", "weights": "openai"}},
        "guide": {
            "features": {"repo": "a/b:0123456", "source": "github", "weights": "/my/dino.pth"}
        },
        "again": [{"architecture": {"embed_dim": 1}, "weights": "/my/dino.pth"}],
        "none": {"weights": None, "source": "local", "repo": "c/d:0123456"},
    }
    assert weights_needed(config) == [CLIP, "/my/dino.pth", "a/b:0123456"]
