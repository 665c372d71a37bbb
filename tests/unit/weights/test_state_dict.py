import zipfile

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from crane.errors import UsageError
from crane.weights import is_torchscript, load_state_dict, openai_geometry


class Archive(nn.Module):
    """Some of the entries of an OpenAI archive, the three whole numbers among them."""

    def __init__(self) -> None:
        super().__init__()
        self.visual = nn.Conv2d(3, 4, 2, bias=False).half()
        self.text_projection = nn.Parameter(torch.randn(4, 5))
        for name, value in (("input_resolution", 224), ("context_length", 77), ("vocab_size", 9)):
            self.register_buffer(name, torch.tensor(value))

    def forward(self, x: Tensor) -> Tensor:
        return self.visual(x)


@pytest.fixture
def tensors():
    return {"visual.conv1.weight": torch.randn(4, 3, 2, 2), "text_projection": torch.randn(4, 5)}


def assert_same(got, wanted):
    assert set(got) == set(wanted)
    for name, value in wanted.items():
        assert got[name].dtype == value.dtype
        assert torch.equal(got[name], value)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda t: t,
        lambda t: {"state_dict": t, "epoch": 3},
        lambda t: {"model": t},
        lambda t: {"epoch": 1, "state_dict": {f"module.{k}": v for k, v in t.items()}},
        lambda t: {"state_dict": {f"module._orig_mod.{k}": v for k, v in t.items()}},
        lambda t: {**t, "input_resolution": torch.tensor(224), "vocab_size": torch.tensor(9)},
    ],
    ids=["plain", "state_dict", "model", "module", "compiled", "openai extras"],
)
@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin"])
def test_pickled_state_dicts(tmp_path, tensors, wrap, suffix):
    path = tmp_path / f"w{suffix}"
    torch.save(wrap(tensors), path)
    assert not is_torchscript(path)
    assert_same(load_state_dict(path), tensors)


def test_old_pickle_format(tmp_path, tensors):
    torch.save(tensors, tmp_path / "w.pth", _use_new_zipfile_serialization=False)
    assert_same(load_state_dict(tmp_path / "w.pth"), tensors)


def test_safetensors(tmp_path, tensors):
    save_file(
        {f"module.{name}": value for name, value in tensors.items()}, tmp_path / "w.safetensors"
    )
    assert_same(load_state_dict(tmp_path / "w.safetensors"), tensors)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script")
def test_torchscript_archive_keeps_types_and_drops_the_whole_numbers(tmp_path):
    archive = Archive()
    torch.jit.script(archive).save(tmp_path / "w.pt")
    assert is_torchscript(tmp_path / "w.pt")
    wanted = {k: v for k, v in archive.state_dict().items() if v.is_floating_point()}
    assert wanted["visual.weight"].dtype == torch.float16
    assert_same(load_state_dict(tmp_path / "w.pt"), wanted)


class Evil:
    def __reduce__(self):
        return print, ("code from the file ran",)


def test_code_in_a_pickle_is_refused_and_not_run(tmp_path, capsys):
    torch.save({"w": Evil()}, tmp_path / "w.pt")
    with pytest.raises(UsageError, match="more than tensors"):
        load_state_dict(tmp_path / "w.pt")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors", "w.txt"])
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"version https://git-lfs\n",
        b"PK\x03\x04 cut short",
        b"hello world",
        b"abc" * 1000,
        b"<!DOCTYPE html>",
    ],
)
def test_other_and_damaged_files_are_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=r"w\."):
        load_state_dict(tmp_path / name)


def test_a_damaged_directory_of_an_archive_is_refused(tmp_path, tensors):
    path = tmp_path / "w.pt"
    torch.save(tensors, path)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"PK\x01\x02", b"XX\x01\x02"))
    assert not is_torchscript(path)
    with pytest.raises(UsageError, match=r"w\.pt is damaged"):
        load_state_dict(path)


def test_a_damaged_torchscript_archive_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "w.pt", "w") as archive:
        archive.writestr("w/constants.pkl", b"nothing else")
    with pytest.raises(UsageError, match="not a whole TorchScript archive"):
        load_state_dict(tmp_path / "w.pt")


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, torch.zeros(3), {}])
def test_files_without_named_tensors_are_refused(tmp_path, content):
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(UsageError, match="no tensors by name"):
        load_state_dict(tmp_path / "w.pt")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"absent\.pt"):
        load_state_dict(tmp_path / "absent.pt")


def test_geometry_names_what_is_missing(tensors):
    with pytest.raises(UsageError, match=r"visual\.proj"):
        openai_geometry(tensors)


def test_weights_of_transformers_are_named_as_such():
    with pytest.raises(UsageError, match="format of Hugging Face's transformers library"):
        openai_geometry({"vision_model.embeddings.class_embedding": torch.zeros(3)})


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
def test_a_git_lfs_pointer_says_what_to_do(tmp_path, name):
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n"
    (tmp_path / name).write_text(pointer)
    with pytest.raises(UsageError, match=r"is a Git LFS pointer.*git lfs pull"):
        load_state_dict(tmp_path / name)
