import numpy as np
import pytest
from PIL import Image

from crane.data import index_folder
from crane.datasets.statistics import measure, picture


def test_counts_sizes_and_regions(tmp_path, write):
    write.image(tmp_path / "good" / "1.png", size=(20, 10))
    write.image(tmp_path / "bad" / "2.png", size=(40, 10))
    write.image(tmp_path / "bad" / "3.png", size=(20, 10))
    pixels = np.zeros((10, 40), np.uint8)
    pixels[0, 0], pixels[4:8, 10:20] = 255, 1
    (tmp_path / "masks" / "bad").mkdir(parents=True)
    Image.fromarray(pixels).save(tmp_path / "masks" / "bad" / "2.png")
    index = index_folder("own", tmp_path, "test", mask_threshold=0)
    heard = []
    found = measure(index, 2, lambda *numbers: heard.append(numbers))
    (one,) = found.values()
    assert (one.num_normal, one.num_anomalous, one.num_masks) == (1, 2, 1)
    assert one.size == "20-40 x 10"
    assert one.areas == [1 / 400, 40 / 400]
    assert one.area_range == pytest.approx((0.0025, 0.05125, 0.1))
    assert heard[-1] == (3, 3)
    page = picture(index, found)
    bare = picture(index, {"own": type(one)(sizes=one.sizes)})
    assert page.height > bare.height + 200
    assert type(one)(sizes=one.sizes).area_range is None
