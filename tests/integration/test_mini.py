"""What the embedded models learned, on a domain that neither pretraining nor a prompt has seen."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from torch.nn import functional as F

from crane.config import compose
from crane.drawn import embedded_domain
from crane.drawn.scene import render
from crane.methods import build_model
from crane.metrics import BinnedPixels, ScoreScale, aupro


@pytest.fixture(scope="module")
def fabrics():
    """A part of an embedded target: 4 classes, 4 flawless images and 2 of each kind of defect."""
    domain = replace(embedded_domain("fabrics"), num_train=0, num_good=4, num_per_kind=2)
    images, masks = [], []
    for picture in domain.pictures():
        seen = render(domain, picture)
        small = Image.fromarray(seen.image).resize((112, 112), Image.Resampling.BICUBIC)
        mask = Image.fromarray(seen.mask).resize((112, 112), Image.Resampling.BILINEAR)
        images.append(torch.from_numpy(np.array(small)).permute(2, 0, 1) / 255.0)
        regions, _ = ndimage.label(np.array(mask.convert("L")) > 127, np.ones((3, 3)))
        masks.append(torch.from_numpy(regions))
    return torch.stack(images), torch.stack(masks)


def aupro_by_hand(fabrics, *overrides: str) -> float:
    """AUPRO of "object." against "damaged object.", without one learned token."""
    model = build_model(compose("train", ["backbone=mini", "image_size=112", *overrides]))
    sentences = []
    for words in ("object.", "damaged object."):
        ids = model.text.tokenize(words)
        rows = model.text.token_embedding(ids)[None]
        none = rows.new_empty(0, 1, 0, rows.shape[-1])
        sentences.append(model.text(rows, torch.tensor([len(ids) - 1]), none))
    text = F.normalize(torch.cat(sentences), dim=-1)[None]
    images, masks = fabrics
    metric = BinnedPixels(num_classes=1, scale=ScoreScale(10, 17))
    with torch.no_grad():
        for part, truth in zip(images.split(20), masks.split(20), strict=True):
            maps = model.detect(model.vision(part), text, (112, 112)).map
            metric.update(maps, truth)
    return aupro(metric.compute()[0], limit=0.3).value


@pytest.mark.parametrize("more", [(), ("method=crane_plus", "guide=mini")], ids=["Crane", "Crane+"])
def test_hand_written_prompts_find_defects_in_cloth(fabrics, more):
    assert aupro_by_hand(fabrics, *more) > 0.40  # chance is 0.15


def test_random_towers_do_not(fabrics):
    """The margin above is what pretraining gives: the same towers at random stay near chance."""
    assert aupro_by_hand(fabrics, "backbone.model.weights=random") < 0.30
