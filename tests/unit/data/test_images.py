import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image
from torchvision import transforms

from crane.data.images import image_to_tensor, label_regions, read_mask, read_rgb, resize_mask
from crane.errors import UsageError
from reference.aupro import regions


def noise(*shape, dtype=np.uint8, seed=0):
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 80), st.integers(1, 80), st.integers(1, 64), st.sampled_from(["RGB", "L"]))
def test_resizing_equals_torchvision_on_pil(width, height, size, mode):
    image = Image.fromarray(noise(height, width, len(mode)).squeeze(2) if mode == "L"
                            else noise(height, width, 3), mode)  # fmt: skip
    bicubic = transforms.InterpolationMode.BICUBIC
    # As published: resized in the file's own mode, then made RGB.
    wanted = transforms.ToTensor()(
        transforms.Resize((size, size), interpolation=bicubic)(image).convert("RGB")
    )
    found = image_to_tensor(image.convert("RGB"), size)
    assert found.dtype == torch.float32
    assert found.is_contiguous()
    torch.testing.assert_close(found, wanted, rtol=0, atol=0)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 50), st.integers(0, 99))
def test_mask_resizing_equals_torchvision_on_pil(width, height, size, seed):
    mask = np.random.default_rng(seed).random((height, width)) < 0.4
    image = Image.fromarray(mask.astype(np.uint8) * 255)
    wanted = transforms.ToTensor()(transforms.Resize((size, size))(image))[0] > 0.5
    found = resize_mask(mask, size, size)
    assert np.array_equal(found, wanted.numpy())
    assert resize_mask(mask, width + 1, size).shape == (size, width + 1)


def test_values_span_zero_to_one(tmp_path):
    tensor = image_to_tensor(Image.fromarray(np.array([[[0, 128, 255]]], np.uint8)), 1)
    torch.testing.assert_close(tensor.flatten(), torch.tensor([0, 128 / 255, 1]))


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif"])
def test_plain_rgb_and_grey_are_untouched(tmp_path, suffix):
    pixels = noise(7, 5, 3)
    Image.fromarray(pixels).save(tmp_path / f"rgb{suffix}")
    Image.fromarray(pixels[..., 0]).save(tmp_path / f"grey{suffix}")
    assert np.array_equal(read_rgb(tmp_path / f"rgb{suffix}"), pixels)
    grey = np.asarray(read_rgb(str(tmp_path / f"grey{suffix}")))
    assert np.array_equal(grey, np.repeat(pixels[..., :1], 3, axis=2))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bit_grey_is_scaled_by_its_full_range(tmp_path, suffix):
    deep = np.array([[0, 128, 129, 257, 32768, 65535]], np.uint16)
    Image.fromarray(deep).save(tmp_path / f"deep{suffix}")
    found = np.asarray(read_rgb(tmp_path / f"deep{suffix}"))
    assert found[..., 0].tolist() == [[0, 0, 1, 1, 128, 255]]
    assert np.array_equal(found[..., 0], found[..., 2])


def test_big_endian_sixteen_bit(tmp_path):
    image = Image.frombytes("I;16B", (2, 1), np.array([0, 65535], ">u2").tobytes())
    image.save(tmp_path / "a.tif")
    assert np.asarray(read_rgb(tmp_path / "a.tif"))[0, :, 0].tolist() == [0, 255]


def test_thirty_two_bit_integers_must_fit_sixteen(tmp_path):
    Image.fromarray(np.array([[0, 65535]], np.int32)).save(tmp_path / "a.tif")
    assert np.asarray(read_rgb(tmp_path / "a.tif"))[0, :, 0].tolist() == [0, 255]
    Image.fromarray(np.array([[0, 70000]], np.int32)).save(tmp_path / "b.tif")
    with pytest.raises(UsageError, match=r"b\.tif has pixel values from 0 to 70000"):
        read_rgb(tmp_path / "b.tif")


def test_float_images_lie_between_zero_and_one(tmp_path):
    Image.fromarray(np.array([[0, 0.5, 1]], np.float32)).save(tmp_path / "a.tif")
    assert np.asarray(read_rgb(tmp_path / "a.tif"))[0, :, 0].tolist() == [0, 128, 255]
    for bad in (-0.1, 1.5, np.nan):
        Image.fromarray(np.array([[0.5, bad, 0.5]], np.float32)).save(tmp_path / "b.tif")
        with pytest.raises(UsageError, match=r"b\.tif has float pixels from .*expected 0 to 1"):
            read_rgb(tmp_path / "b.tif")


def test_transparency_is_laid_on_white(tmp_path):
    pixels = noise(4, 6, 4)
    pixels[0, :, 3], pixels[1, :, 3] = 0, 255
    Image.fromarray(pixels, "RGBA").save(tmp_path / "a.png")
    found = np.asarray(read_rgb(tmp_path / "a.png")).astype(int)
    assert (found[0] == 255).all()
    assert np.array_equal(found[1], pixels[1, :, :3])
    alpha = pixels[..., 3:] / 255
    assert np.abs(found - (alpha * pixels[..., :3] + (1 - alpha) * 255)).max() <= 1
    Image.fromarray(pixels[..., [0, 3]], "LA").save(tmp_path / "la.png")
    assert (np.asarray(read_rgb(tmp_path / "la.png"))[0] == 255).all()


def test_palettes_with_and_without_transparency(tmp_path):
    image = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    image.putpalette([10, 20, 30, 200, 100, 0])
    image.save(tmp_path / "p.png")
    assert np.asarray(read_rgb(tmp_path / "p.png")).tolist() == [[[10, 20, 30], [200, 100, 0]]]
    image.save(tmp_path / "t.png", transparency=0)
    assert np.asarray(read_rgb(tmp_path / "t.png"))[0, 0].tolist() == [255, 255, 255]


@pytest.mark.parametrize("mode", ["1", "L", "CMYK", "YCbCr"])
def test_other_modes_are_what_pil_makes_of_them(tmp_path, mode):
    image = Image.fromarray(noise(8, 8, 3)).convert(mode)
    # Pillow 12.3 writes uncompressed YCbCr that it cannot read; JPEG inside TIFF is what is met.
    image.save(tmp_path / "a.tif", compression="jpeg" if mode == "YCbCr" else None)
    wanted = image if mode != "YCbCr" else Image.open(tmp_path / "a.tif")
    assert np.array_equal(read_rgb(tmp_path / "a.tif"), wanted.convert("RGB"))


def exif(orientation):
    found = Image.Exif()
    found[0x0112] = orientation
    return found


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, orientation):
    corner = np.zeros((6, 4, 3), np.uint8)
    corner[0, 0] = 255
    Image.fromarray(corner).save(tmp_path / "a.png", exif=exif(orientation))
    found = np.asarray(read_rgb(tmp_path / "a.png"))[..., 0]
    assert found.shape == ((6, 4) if orientation < 5 else (4, 6))
    h, w = found.shape[0] - 1, found.shape[1] - 1
    at = {1: (0, 0), 2: (0, w), 3: (h, w), 4: (h, 0), 5: (0, 0), 6: (0, w), 7: (h, w), 8: (h, 0)}
    assert tuple(np.argwhere(found)[0]) == at[orientation]


def test_unusable_files_are_named(tmp_path, write):
    whole = write.image(tmp_path / "whole.png", size=(64, 64)).read_bytes()
    jpeg = write.image(tmp_path / "whole.jpg", size=(64, 64)).read_bytes()
    for name, content in {
        "cut.png": whole[: len(whole) // 2],
        "cut.jpg": jpeg[: len(jpeg) // 2],
        "head.png": whole[:20],
        "empty.png": b"",
        "text.png": b"not an image at all",
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UsageError, match=rf"cannot read image .*{name}"):
            read_rgb(tmp_path / name)
        with pytest.raises(UsageError, match=rf"cannot read mask .*{name}"):
            read_mask(tmp_path / name, 0)
    with pytest.raises(UsageError, match=r"there is no image .*none\.png"):
        read_rgb(tmp_path / "none.png")


@pytest.mark.filterwarnings("ignore:Corrupt EXIF", "ignore:Truncated File")
def test_every_cut_of_a_file_is_one_kind_of_error(tmp_path, write):
    for suffix in (".png", ".jpg", ".bmp", ".tif", ".webp"):
        whole = write.image(tmp_path / f"w{suffix}", size=(20, 20)).read_bytes()
        for length in range(1, len(whole) - 40, 37):
            (tmp_path / f"c{suffix}").write_bytes(whole[:length])
            with pytest.raises(UsageError):
                read_rgb(tmp_path / f"c{suffix}")


def test_decompression_bombs_are_refused(tmp_path, write, monkeypatch):
    path = write.image(tmp_path / "bomb.png", size=(64, 64))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(UsageError, match=r"bomb\.png has more than 2,000 pixels; .*tiles"):
        read_rgb(path)


@pytest.mark.parametrize(
    ("values", "threshold", "wanted"),
    [
        (np.array([[0, 1, 3, 255]], np.uint8), 0, [[False, True, True, True]]),
        (np.array([[0, 1, 127, 128]], np.uint8), 127, [[False, False, False, True]]),
        (np.array([[0, 1, 65535]], np.uint16), 0, [[False, True, True]]),
        (np.array([[0, 127 * 257, 128 * 257]], np.uint16), 127, [[False, False, True]]),
        (np.array([[0, 0.4, 1]], np.float32), 127, [[False, False, True]]),
        (np.array([[False, True]]), 127, [[False, True]]),
    ],
)
def test_mask_thresholds(tmp_path, values, threshold, wanted):
    Image.fromarray(values).save(tmp_path / "m.tif")
    assert read_mask(tmp_path / "m.tif", threshold).tolist() == wanted


def test_defect_ids_vanish_without_their_rule(tmp_path, write):
    path = write.mask(tmp_path / "m.png", value=3)
    assert read_mask(path, 0).sum() == 64
    assert read_mask(path, 127).sum() == 0


def test_jpeg_masks_ring_at_zero(tmp_path, write):
    path = write.mask(tmp_path / "m.jpg", size=(64, 64), box=(13, 13, 41, 41))
    truth = 28 * 28
    assert read_mask(path, 0).sum() > truth
    assert abs(int(read_mask(path, 127).sum()) - truth) < 10


def test_palette_masks(tmp_path):
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
    image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    image.save(tmp_path / "p.png")
    assert read_mask(tmp_path / "p.png", 0).tolist() == [[False, True, True]]


def test_a_box_is_cut_from_the_upright_image(tmp_path):
    pixels = np.arange(6 * 4 * 3, dtype=np.uint8).reshape(6, 4, 3)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    upright = np.asarray(read_rgb(tmp_path / "a.png"))
    assert upright.shape == (4, 6, 3)
    part = read_rgb(tmp_path / "a.png", (1, 0, 5, 2))
    assert np.array_equal(np.asarray(part), upright[0:2, 1:5])
    mask = read_mask(tmp_path / "a.png", 9, (1, 0, 5, 2))
    assert np.array_equal(mask, read_mask(tmp_path / "a.png", 9)[0:2, 1:5])


@pytest.mark.parametrize("box", [(0, 0, 9, 1), (-1, 0, 2, 2), (2, 0, 2, 1), (0, 3, 1, 2)])
def test_a_box_outside_the_image_is_refused(tmp_path, box):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    with pytest.raises(UsageError, match=r"is not inside .*a.png, 4 x 4 pixels"):
        read_rgb(tmp_path / "a.png", box)


@pytest.mark.parametrize("size", [(1024, 700), (90, 120), (64, 64)])
def test_the_fast_resizer_is_off_by_two_levels_at_most(size):
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (24, 24, 3), dtype=np.uint8))
    image = small.resize(size, Image.Resampling.BICUBIC)
    exact, fast = (image_to_tensor(image, 64, name) for name in ("pil", "torch"))
    assert exact.shape == fast.shape
    assert (exact - fast).abs().max() * 255 < 2.01
    assert (exact - fast).abs().mean() * 255 < 0.2


@settings(deadline=None)
@given(arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.booleans()))
def test_regions_are_those_of_a_flood_fill(mask):
    labelled = label_regions(mask)
    assert labelled.dtype == np.int32
    found = {
        frozenset(map(tuple, np.argwhere(labelled == r))) for r in range(1, labelled.max() + 1)
    }
    assert found == {frozenset(region) for region in regions(mask)}


def test_diagonal_neighbours_are_one_region_across_borders_are_not():
    mask = np.eye(4, dtype=bool)
    mask[0, 3] = True  # touches the border, far from the diagonal
    labelled = label_regions(mask)
    assert labelled.max() == 2
    assert len(set(labelled[np.eye(4, dtype=bool)])) == 1
