import numpy as np
import pytest
import torch
from PIL import Image

from crane.data.dataset import Draw, OpenedImage, SourceDataset, TrainingDataset, mosaic


def tile(value, size=(4, 6), label=0, has_mask=True):
    width, height = size
    return OpenedImage(
        Image.new("RGB", size, (value, value, value)),
        np.full((height, width), bool(label)),
        has_mask,
        label,
    )


def training(index, rate, anomalous_rate=0.5, positions=None, seed=111):
    source = SourceDataset({"mvtec": index}, 16)
    chosen = range(len(source)) if positions is None else positions
    return TrainingDataset(
        source, chosen, mosaic_rate=rate, mosaic_anomalous_rate=anomalous_rate, seed=seed
    )


def test_tiles_lie_row_by_row():
    joined = mosaic([tile(10), tile(20, label=1), tile(30), tile(40, size=(9, 9))])
    assert joined.image.size == (8, 12)
    pixels = np.asarray(joined.image)[..., 0]
    assert [pixels[0, 0], pixels[0, 7], pixels[11, 0], pixels[11, 7]] == [10, 20, 30, 40]
    assert joined.mask[:6, 4:].all()
    assert joined.mask.sum() == 24
    assert (joined.label, joined.has_mask) == (1, True)


def test_one_unknown_mask_makes_the_whole_unknown():
    joined = mosaic([tile(0), tile(0), tile(0, label=1, has_mask=False), tile(0)])
    assert (joined.label, joined.has_mask) == (1, False)
    assert mosaic([tile(0)] * 4).label == 0


def test_rate_zero_is_the_images_themselves(mvtec):
    dataset = training(mvtec, 0.0, positions=[3, 5])
    assert len(dataset) == 2
    item = dataset[Draw(7, 1)]
    assert int(item["index"]) == 5
    torch.testing.assert_close(item["image"], dataset.source[5]["image"], rtol=0, atol=0)


def test_chance_depends_on_seed_epoch_and_index_alone(mvtec):
    one, two = training(mvtec, 0.5), training(mvtec, 0.5)
    keys = [Draw(epoch, i) for epoch in range(3) for i in range(len(one))]
    images = [one[key]["image"] for key in keys]
    for key, image in reversed(list(zip(keys, images, strict=True))):
        torch.testing.assert_close(two[key]["image"], image, rtol=0, atol=0)
    torch.testing.assert_close(one[5]["image"], one[Draw(0, 5)]["image"], rtol=0, atol=0)
    other = training(mvtec, 0.5, seed=112)
    assert any(not torch.equal(other[k]["image"], i) for k, i in zip(keys, images, strict=True))
    first, second = images[:16], images[16:32]
    assert any(not torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_labels_masks_and_classes_of_mosaics_agree(mvtec):
    dataset = training(mvtec, 1.0)
    items = [dataset[Draw(e, i)] for e in range(4) for i in range(16)]
    for item in items:
        assert bool(item["mask"].any()) == bool(item["label"])
        assert int(item["class_id"]) == int(item["index"]) // 8
    share = sum(int(item["label"]) for item in items) / len(items)
    assert 0.3 < share < 0.7
    assert {int(item["mask"].max()) for item in items if item["label"]} == {4}


@pytest.mark.parametrize(("rate", "label"), [(0.0, 0), (1.0, 1)])
def test_share_of_anomalous_mosaics(mvtec, rate, label):
    dataset = training(mvtec, 1.0, anomalous_rate=rate)
    assert {int(dataset[i]["label"]) for i in range(16)} == {label}


def test_mosaics_use_training_images_of_the_class_only(mvtec):
    # One normal bottle and one anomalous cable train: every mosaic must consist of those.
    dataset = training(mvtec, 1.0, positions=[0, 12])
    for i, position in enumerate((0, 12)):
        wanted = mosaic([dataset.source.open(position)] * 4).item(16, i, position)
        for epoch in range(4):
            torch.testing.assert_close(
                dataset[Draw(epoch, i)]["image"], wanted["image"], rtol=0, atol=0
            )
