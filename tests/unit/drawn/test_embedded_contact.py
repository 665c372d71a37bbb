import numpy as np
from PIL import Image

from crane.data.images import read_mask
from crane.pictures.contact import contact_sheet

MAGENTA = (255, 0, 255)


def test_a_sheet_has_a_row_a_class_and_outlines_the_defects(boards):
    sheet = contact_sheet(boards, num_each=2, num_columns=8, tile=64)
    assert sheet.size == (8 * 68 + 4, 3 * 86 + 4)
    outlined = (np.asarray(sheet) == MAGENTA).all(axis=-1)
    assert outlined[:, : 2 * 68].sum() == 0, "normal images have no outline"
    for column in range(2, 8):
        for row in range(3):
            tile = outlined[4 + 86 * row :, 4 + 68 * column :][:64, :64]
            assert tile.any()


def test_a_long_class_continues_in_the_next_row(boards):
    sheet = contact_sheet(boards, num_each=2, num_columns=5, tile=32)
    assert sheet.size == (5 * 36 + 4, 6 * 54 + 4)


def test_the_images_show_unspoilt_without_outline(boards):
    sheet = contact_sheet(boards, num_each=1, num_columns=4, tile=224, outline=False)
    first = boards.samples[0]
    tile = np.asarray(sheet)[4:228, 4:228]
    np.testing.assert_array_equal(tile, np.asarray(Image.open(first.image)))


def test_the_outline_lies_outside_the_mask(boards):
    sample = next(s for s in boards.samples if s.defect != "good")
    sheet = np.asarray(contact_sheet(boards, num_each=1, num_columns=4, tile=224))
    tile = sheet[4:228, 4 + 228 : 4 + 228 + 224]
    outlined = (tile == MAGENTA).all(axis=-1)
    assert not (outlined & read_mask(sample.mask, boards.mask_threshold)).any()
