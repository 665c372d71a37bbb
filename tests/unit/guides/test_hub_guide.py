import textwrap

import pytest
import torch

from crane.errors import UsageError
from crane.guides import HubGuide

REPO = "facebookresearch/dinov2:b8931f7bf91576930313be2c6d6af376033b35f0"
HUBCONF = """
import torch
from torch import nn

dependencies = ["torch"]


class Model(nn.Module):
    # The interface of DINOv2: patch_size, four registers, get_intermediate_layers.
    patch_size = 14

    def __init__(self, width):
        super().__init__()
        self.embed = nn.Conv2d(3, width, 14, stride=14)
        self.prefix = nn.Parameter(torch.randn(1, 5, width))
        self.blocks = nn.ModuleList(nn.Linear(width, width) for _ in range(3))
        self.norm = nn.LayerNorm(width)

    def get_intermediate_layers(
        self, x, n=1, reshape=False, return_class_token=False, norm=True
    ):
        B, _, h, w = x.shape
        x = self.embed(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.prefix.expand(B, -1, -1), x], dim=1)
        outputs = []
        for block in self.blocks:
            x = x + block(x).tanh()
            outputs.append(x)
        outputs = [self.norm(out) if norm else out for out in outputs[-n:]]
        outputs = [out[:, 5:] for out in outputs]
        if reshape:
            shape = (B, h // 14, w // 14, -1)
            outputs = [out.reshape(shape).permute(0, 3, 1, 2).contiguous() for out in outputs]
        return tuple(outputs)


def dinov2_tiny(*, pretrained=True, width=24):
    if pretrained:
        raise OSError("would download")
    return Model(width)


def classifier(pretrained=True):
    return nn.Linear(2, 2)


def fails(pretrained=True):
    raise OSError("no disk")


def no_choice():
    return Model(24)
"""


@pytest.fixture
def repo_dir(tmp_path):
    folder = tmp_path / "clone"
    folder.mkdir()
    (folder / "hubconf.py").write_text(textwrap.dedent(HUBCONF))
    return folder


@pytest.fixture
def build(repo_dir, tmp_path):
    def build(**overrides):
        arguments = {
            "repo": REPO,
            "source": "local",
            "repo_dir": repo_dir,
            "entry": "dinov2_tiny",
            "weights": "random",
            "seed": 0,
            "weights_dir": tmp_path,
            "allow_download": False,
            "image_size": None,
            "fit": "resize",
            "mean": [0.0] * 3,
            "std": [1.0] * 3,
        }
        return HubGuide(**{**arguments, **overrides})

    return build


def test_features_are_the_last_layer_normalised_without_class_and_registers(build):
    guide = build()
    guide.model.norm.weight.data.uniform_(0.5, 2)
    images = torch.rand(2, 3, 56, 70)
    features = guide(images)
    assert features.shape == (2, 24, 4, 5)
    tokens = guide.model.embed(images).flatten(2).transpose(1, 2)
    for block in guide.model.blocks:
        tokens = tokens + block(tokens).tanh()
    torch.testing.assert_close(features.flatten(2).transpose(1, 2), guide.model.norm(tokens))


def test_the_patch_size_is_the_models(build):
    assert build().patch_size == 14
    assert build()(torch.rand(1, 3, 60, 50)).shape == (1, 24, 4, 4)


def test_random_weights_follow_the_seed_and_leave_the_global_generator(build):
    images = torch.rand(1, 3, 28, 28)
    before = torch.get_rng_state()
    first, again, other = build(seed=3), build(seed=3), build(seed=4)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(first(images), again(images))
    assert not torch.equal(first(images), other(images))


def test_guides_are_frozen(build):
    guide = build()
    assert not guide.training
    assert not any(p.requires_grad for p in guide.parameters())


def test_the_published_name_is_found_in_the_weights_folder(build, tmp_path):
    source = build(seed=6)
    torch.save(source.model.state_dict(), tmp_path / "dinov2_vitb14_reg4_pretrain.pth")
    loaded = build(weights="dinov2_vitb14_reg4_pretrain.pth")
    images = torch.rand(1, 3, 28, 28)
    assert torch.equal(loaded(images), source(images))


def test_the_copy_torch_hub_keeps_is_used(build, repo_dir):
    folder = torch.hub.get_dir() / repo_dir.__class__(REPO.replace("/", "_").replace(":", "_"))
    folder.parent.mkdir(parents=True)
    repo_dir.rename(folder)
    assert build(source="github", repo_dir=None).patch_size == 14


def test_missing_weights_and_code_are_named_and_nothing_is_fetched(build):
    with pytest.raises(UsageError, match=r"dl\.fbaipublicfiles\.com/dinov2.*reg4_pretrain\.pth"):
        build(weights="dinov2_vitb14_reg4_pretrain.pth")
    with pytest.raises(UsageError, match=r"github\.com/facebookresearch/dinov2/archive/b8931f7"):
        build(source="github", repo_dir=None)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("dinov2_vitb14", r"guide\.features\.entry must .*hubconf\.py .*'dinov2_vitb14'"),
        ("no_choice", "takes pretrained=False"),
        ("classifier", r"get_intermediate_layers and patch_size, not a Linear \(classifier\)"),
    ],
)
def test_entries_that_do_not_fit_are_refused(build, entry, said):
    with pytest.raises(UsageError, match=said):
        build(entry=entry)


def test_code_that_fails_is_told(build, repo_dir):
    with pytest.raises(UsageError, match=r"fails in .*hubconf\.py fails with OSError: no disk"):
        build(entry="fails")
    (repo_dir / "hubconf.py").write_text("import no_such_module")
    with pytest.raises(UsageError, match=r"ModuleNotFoundError.*no_such_module.*install what it"):
        build()
    (repo_dir / "hubconf.py").write_text("def broken(:")
    with pytest.raises(UsageError, match=r"guide\.features: .* fails with SyntaxError"):
        build()
    (repo_dir / "hubconf.py").write_text("raise SystemExit(0)")
    with pytest.raises(UsageError, match="fails with SystemExit"):
        build()


def test_weights_that_do_not_fit_are_refused(build, tmp_path):
    torch.save({"norm.weight": torch.zeros(3)}, tmp_path / "w.pth")
    with pytest.raises(
        UsageError, match=r"guide\.features\.weights: the weights in .*w\.pth do not fit"
    ):
        build(weights=tmp_path / "w.pth")
