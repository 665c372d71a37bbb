import numpy as np
import pytest
from PIL import Image

from crane.data.images import read_mask
from crane.data.index import Index, sorted_samples
from crane.datasets.statistics import area_histogram, contact_sheet
from crane.types import Sample

MAGENTA = (255, 0, 255)


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Three classes with three kinds of defects, three images of each kind, of 224 pixels."""
    folder, rng, samples = tmp_path_factory.mktemp("parts"), np.random.default_rng(0), []
    for name in ("bolt", "nut", "washer"):
        for defect in ("good", "bent", "cut", "dent"):
            for number in range(3):
                image = folder / f"{name}_{defect}_{number}.png"
                pixels = rng.integers(0, 200, (224, 224, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(image)
                label, mask = int(defect != "good"), None
                if label:
                    mask = image.with_suffix(".mask.png")
                    region = np.zeros((224, 224), np.uint8)
                    region[50:90, 60 : 100 + number] = 255
                    Image.fromarray(region).save(mask)
                samples.append(Sample(image, label, name, defect, mask))
    return Index("parts", folder, sorted_samples(samples), mask_threshold=0)


def test_a_sheet_has_a_row_a_class_and_outlines_the_defects(parts):
    sheet = contact_sheet(parts, num_each=2, num_columns=8, tile=64)
    assert sheet.size == (8 * 68 + 4, 3 * 86 + 4)
    outlined = (np.asarray(sheet) == MAGENTA).all(axis=-1)
    assert outlined[:, : 2 * 68].sum() == 0, "normal images have no outline"
    for column in range(2, 8):
        for row in range(3):
            tile = outlined[4 + 86 * row :, 4 + 68 * column :][:64, :64]
            assert tile.any()


def test_a_long_class_continues_in_the_next_row(parts):
    sheet = contact_sheet(parts, num_each=2, num_columns=5, tile=32)
    assert sheet.size == (5 * 36 + 4, 6 * 54 + 4)


def test_the_images_show_unspoilt_without_outline(parts):
    sheet = contact_sheet(parts, num_each=1, num_columns=4, tile=224, outline=False)
    first = parts.samples[0]
    tile = np.asarray(sheet)[4:228, 4:228]
    np.testing.assert_array_equal(tile, np.asarray(Image.open(first.image)))


def test_the_outline_lies_outside_the_mask(parts):
    sample = next(s for s in parts.samples if s.defect != "good")
    sheet = np.asarray(contact_sheet(parts, num_each=1, num_columns=4, tile=224))
    tile = sheet[4:228, 4 + 228 : 4 + 228 + 224]
    outlined = (tile == MAGENTA).all(axis=-1)
    assert outlined.any()
    assert not (outlined & read_mask(sample.mask, parts.mask_threshold)).any()


def test_a_histogram_counts_the_regions():
    chart = area_histogram([0.001, 0.02, 0.5], 480)
    assert chart.size == (480, 260)
    assert len(set(map(tuple, np.asarray(chart).reshape(-1, 3)))) > 10
