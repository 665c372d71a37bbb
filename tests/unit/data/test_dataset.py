import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from torch.utils.data import default_collate

from crane.data import Index, index_folder
from crane.data.dataset import IndexDataset, SourceDataset, TokenDataset
from crane.errors import UsageError
from crane.types import Batch


def test_items_collate_to_batches(mvtec):
    dataset = IndexDataset(mvtec, 32)
    batch = default_collate([dataset[i] for i in (0, 5, 15)])
    assert set(batch) == set(Batch.__annotations__)
    shapes = {key: (tuple(value.shape), value.dtype) for key, value in batch.items()}
    assert shapes == {
        "image": ((3, 3, 32, 32), torch.float32),
        "mask": ((3, 32, 32), torch.int32),
        "has_mask": ((3,), torch.bool),
        "label": ((3,), torch.int64),
        "class_id": ((3,), torch.int64),
        "index": ((3,), torch.int64),
    }
    assert batch["label"].tolist() == [0, 1, 1]
    assert batch["class_id"].tolist() == [0, 0, 1]
    assert batch["index"].tolist() == [0, 5, 15]
    assert batch["has_mask"].all()
    assert batch["mask"].amax((1, 2)).tolist() == [0, 1, 1]


def test_iterates_once_through(mvtec):
    assert [int(item["index"]) for item in IndexDataset(mvtec, 8)] == list(range(16))
    assert len(IndexDataset(replace(mvtec, samples=()), 8)) == 0


def test_regions_are_eight_connected_and_counted(tmp_path, write):
    write.image(tmp_path / "good" / "0.png", size=(8, 8))
    write.image(tmp_path / "bad" / "1.png", size=(8, 8))
    mask = np.zeros((8, 8), np.uint8)
    mask[1, 1] = mask[2, 2] = mask[6, 6] = 255
    (tmp_path / "masks" / "bad").mkdir(parents=True)
    Image.fromarray(mask).save(tmp_path / "masks" / "bad" / "1.png")
    item = IndexDataset(index_folder("x", tmp_path, "test", mask_threshold=0), 8)[1]
    wanted, num = ndimage.label(mask, structure=np.ones((3, 3)))
    assert num == 2
    assert np.array_equal(item["mask"].numpy(), wanted)


def test_what_is_known_of_masks(mvtec):
    lacking = replace(mvtec.samples[5], mask=None)
    partly = replace(mvtec, samples=(*mvtec.samples[:5], lacking, *mvtec.samples[6:]))
    dataset = IndexDataset(partly, 8)
    assert [bool(dataset[i]["has_mask"]) for i in (0, 4, 5)] == [True, True, False]
    assert not dataset[5]["mask"].any()
    none = replace(mvtec, samples=tuple(replace(s, mask=None) for s in mvtec.samples))
    assert not any(item["has_mask"] for item in IndexDataset(none, 8))


def test_defect_ids_become_masks_before_resizing(tmp_path, write):
    # Ids of 1 to 3 resized as they are and cut at half of 255 would leave nothing.
    write.image(tmp_path / "good" / "0.png")
    write.image(tmp_path / "bad" / "1.png")
    write.mask(tmp_path / "masks" / "bad" / "1.png", value=2)
    index = index_folder("visa", tmp_path, "test", mask_threshold=0)
    assert IndexDataset(index, 12)[1]["mask"].sum() > 0


def test_an_empty_mask_of_an_anomalous_image_is_told(mvtec, caplog):
    with caplog.at_level(logging.WARNING):
        IndexDataset(replace(mvtec, mask_threshold=254), 8)[4]
    assert not caplog.text
    broken = mvtec.samples[4].mask
    Image.fromarray(np.zeros((16, 24), np.uint8)).save(broken)
    with caplog.at_level(logging.WARNING):
        IndexDataset(mvtec, 8)[4]
    assert str(broken) in caplog.text


def test_sizes_of_mask_and_image_must_agree(mvtec, write):
    sample = mvtec.samples[4]
    write.mask(sample.mask, size=(16, 24))
    with pytest.raises(
        UsageError,
        match=r"000_mask.* is 16 x 24 pixels, but its image .* 24 x 16; turn it like its image",
    ):
        IndexDataset(mvtec, 8)[4]


def test_masks_fit_the_upright_image(mvtec, write):
    # The camera's file lies on its side (24 x 16, orientation 6); the mask was drawn upright.
    sample = mvtec.samples[4]
    exif = Image.Exif()
    exif[0x0112] = 6
    lying = np.zeros((16, 24, 3), np.uint8)
    lying[10:14, 2:8] = 255
    Image.fromarray(lying).save(sample.image, exif=exif)
    upright = np.rot90(lying[..., 0], -1)
    Image.fromarray(np.ascontiguousarray(upright)).save(sample.mask)
    opened = IndexDataset(mvtec, 8).open(4)
    assert np.array_equal(np.asarray(opened.image)[..., 0] > 0, opened.mask)


def test_several_sources_end_to_end(mvtec, mvtec_root):
    other = index_folder("other", mvtec_root / "cable", "test", mask_threshold=0)
    both = SourceDataset({"mvtec": mvtec, "other": other}, 8)
    assert both.class_names == ("mvtec/bottle", "mvtec/cable", "other/cable")
    assert len(both) == 24
    assert int(both[20]["class_id"]) == 2
    assert int(both[20]["index"]) == 20
    assert both.label(16) == 0
    assert both.label(20) == 1
    assert both.position(1, 4) == 20
    torch.testing.assert_close(both[20]["image"], IndexDataset(other, 8)[4]["image"])
    assert SourceDataset({"mvtec": mvtec}, 8).class_names == ("bottle", "cable")


def test_an_empty_source(mvtec):
    assert len(SourceDataset({}, 8)) == 0
    assert SourceDataset({}, 8).class_names == ()
    empty = Index("none", mvtec.root, (), 0)
    assert SourceDataset({"none": empty, "mvtec": mvtec}, 8).position(1, 0) == 0


def test_features_in_a_source_are_numbered_through_all_its_parts(mvtec, mvtec_root):
    other = index_folder("other", mvtec_root / "cable", "test", mask_threshold=0)
    both = SourceDataset({"mvtec": mvtec, "other": other}, 8)
    names = []

    def tokens(name):
        names.append(name)
        return torch.zeros(4), torch.zeros(2, 1, 1, 4)

    both.parts[1] = TokenDataset(both.parts[1], tokens)
    item = both[20]
    assert names == ["test/broken/000.png"]
    assert (int(item["class_id"]), int(item["index"]), int(item["label"])) == (2, 20, 1)
    assert item["mask"].any()
    assert "image" in both[4]
