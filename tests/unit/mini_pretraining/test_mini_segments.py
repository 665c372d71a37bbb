"""What was drawn, as labels and features of patches: for the guide, and in its place."""

import math

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from crane.attention import GuidedAttention
from crane.drawn import embedded_domain
from crane.drawn.scene import render
from crane.errors import UsageError
from crane.weights.catalogue import MINI_FOLDER
from experiments.mini_pretraining.canvas import Canvas
from experiments.mini_pretraining.guide_segments import (
    DEFECT,
    GROUND,
    OBJECT,
    UNCLEAR,
    pair_loss,
    segment_labels,
    train_on_segments,
)
from experiments.mini_pretraining.oracle import OracleGuide
from experiments.mini_pretraining.pictures import (
    SEEN,
    patch_coverage,
    scattered,
    segment_features,
)

D_ATTN = GuidedAttention(beta=1.2, gamma=3.0, mean="image", value_input="after_attention")


@pytest.mark.parametrize("num", [3, 40, 196])
def test_scattered_patches_are_shared_by_twins_and_show_the_defect(drawn, num):
    canvas = Canvas(112, torch.Generator().manual_seed(1))
    kept = scattered(canvas, drawn, 8, num)
    assert kept.shape == (len(drawn.images), num)
    assert all(len(set(row.tolist())) == num for row in kept)
    first, second = kept.chunk(2)
    assert torch.equal(first, second)
    damaged = patch_coverage(drawn.masks, 8).chunk(2)[1] > 0
    seen = damaged.gather(1, second).sum(1)
    assert (seen >= damaged.sum(1).clamp_max(min(SEEN, num))).all()
    if num == 40:  # few of the others: the rest is chance
        assert (seen < num).all()
        assert not torch.equal(scattered(canvas, drawn, 8, num), kept)


def test_labels_say_what_is_drawn(drawn):
    labels = segment_labels(drawn, 8)
    defect, object_ = patch_coverage(drawn.masks, 8), patch_coverage(drawn.regions, 8)
    assert set(labels.unique().tolist()) == {UNCLEAR, GROUND, OBJECT, DEFECT}
    assert (defect[labels == DEFECT] > 0.25).all()
    assert (defect[(labels == GROUND) | (labels == OBJECT)] == 0).all()
    assert (object_[labels == OBJECT] > 0.9).all()
    assert (object_[labels == GROUND] < 0.1).all()


def test_d_attn_keeps_to_drawn_segments(drawn):
    """Their features survive the published threshold, and most of the weight stays inside."""
    canvas = Canvas(112, torch.Generator().manual_seed(1))
    features, labels = segment_features(canvas, drawn, 8), segment_labels(drawn, 8)
    read = D_ATTN.correlations(features)
    within = labels[:, :, None] == labels[:, None]
    shares = []
    for weight, own, label in zip(read, within, labels, strict=True):
        if (label == GROUND).sum() > 10 and (label == OBJECT).sum() > 10:
            inside = label == OBJECT
            share = (weight * own)[inside].sum() / weight[inside].sum()
            shares.append(share - inside.float().mean())
    assert torch.stack(shares).mean() > 0.25  # more than patches at random
    assert (read > 0).float().mean() > 0.2


def test_the_pair_loss_prefers_features_that_follow_the_segments(drawn):
    labels = segment_labels(drawn, 8)
    codes = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    known = codes[labels.clamp_min(0)].transpose(1, 2).unflatten(2, (14, 14))
    noise = torch.randn(known.shape, generator=torch.Generator().manual_seed(1))
    options = {"beta": 1.2, "reach": 4, "sharpness": 10.0}
    right = pair_loss(known + 0.1 * noise, labels, **options)
    assert right < 0.8 * pair_loss(noise, labels, **options)
    shuffled = known.flatten(2)[:, :, torch.randperm(196)].unflatten(2, (14, 14))
    assert right < 0.8 * pair_loss(shuffled + 0.1 * noise, labels, **options)


def test_a_picture_without_clear_pairs_costs_nothing():
    features = torch.randn(1, 4, 3, 3, requires_grad=True)
    loss = pair_loss(features, torch.full((1, 9), UNCLEAR), beta=1.2, reach=4, sharpness=10.0)
    loss.backward()
    assert loss == 0
    assert features.grad is not None
    assert not features.grad.any()


def test_training_on_segments_resumes_and_leaves_positions_at_zero(recipe, tmp_path):
    weights = load_file(MINI_FOLDER / "crane-mini-guide.safetensors")
    start = {name: value.float() for name, value in weights.items()}
    torch.save({"vit": start}, tmp_path / "guide.ckpt")
    first = train_on_segments(recipe, tmp_path, "cpu", [2])
    rest = train_on_segments(recipe, tmp_path, "cpu", [2, 2])
    assert len(first) == len(rest) == 2
    assert all(math.isfinite(loss) for loss in first + rest)
    vit = torch.load(tmp_path / "guide.ckpt")["vit"]
    assert not vit["pos_embed"].any()
    assert not torch.equal(vit["patch_embed.proj.weight"], start["patch_embed.proj.weight"])


def test_the_oracle_finds_each_image_at_any_size():
    guide = OracleGuide(domains=["fabrics"])
    domain = embedded_domain("fabrics")
    damaged = [p for p in domain.pictures() if p.kind != "good"][::7]
    seen = [render(domain, picture) for picture in damaged]
    images = torch.stack([torch.from_numpy(s.image).permute(2, 0, 1) / 255.0 for s in seen])
    masks = torch.stack([torch.from_numpy(s.mask).float() for s in seen])
    for size in (224, 112):
        small = F.interpolate(images, size=(size, size), mode="bicubic", antialias=True)
        features = guide(small)
        assert features.shape[-2:] == (size // 8, size // 8)
        expected = F.interpolate(masks[:, None], size=features.shape[-2:], mode="area")
        torch.testing.assert_close(features[:, 2:3], 2.0 * expected)
    with pytest.raises(UsageError, match="knows the images of its drawn domains only"):
        guide(torch.full((1, 3, 224, 224), 0.5))
