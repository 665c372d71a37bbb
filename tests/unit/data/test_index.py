import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from crane.data import Index, index_folder
from crane.errors import UsageError
from crane.types import Sample


def test_counts_and_names(mvtec):
    assert mvtec.class_names == ("bottle", "cable")
    assert (mvtec.num_normal, mvtec.num_anomalous) == (8, 8)
    assert mvtec.has_masks
    assert hash(mvtec) == hash(replace(mvtec))


def test_order_is_class_then_label_then_path(mvtec):
    names = [mvtec.relative(s.image) for s in mvtec.samples]
    assert names[:5] == [
        "bottle/test/good/000.png",
        "bottle/test/good/001.png",
        "bottle/test/good/002.png",
        "bottle/test/good/003.png",
        "bottle/test/broken/000.png",
    ]


def test_fingerprint_survives_another_folder_and_order(mvtec, mvtec_root, tmp_path):
    copy = shutil.copytree(mvtec_root, tmp_path / "elsewhere" / "named otherwise")
    moved = index_folder("other", copy, "test", mask_threshold=0)
    assert moved.fingerprint() == mvtec.fingerprint()
    backwards = replace(mvtec, samples=mvtec.samples[::-1])
    assert backwards.fingerprint() == mvtec.fingerprint()
    assert len(mvtec.fingerprint()) == 64


def test_fingerprint_sees_every_change(mvtec, mvtec_root, write):
    prints = {mvtec.fingerprint()}
    first, *rest = mvtec.samples
    prints.add(replace(mvtec, samples=tuple(rest)).fingerprint())
    prints.add(replace(mvtec, samples=(replace(first, label=1), *rest)).fingerprint())
    last = replace(mvtec.samples[-1], mask=None)
    prints.add(replace(mvtec, samples=(*mvtec.samples[:-1], last)).fingerprint())
    prints.add(replace(mvtec, mask_threshold=127).fingerprint())
    prints.add(replace(mvtec, samples=(replace(first, box=(0, 0, 9, 9)), *rest)).fingerprint())
    write.image(mvtec_root / "bottle" / "test" / "good" / "000.png", size=(30, 30))
    prints.add(mvtec.fingerprint())
    write.mask(mvtec_root / "bottle" / "ground_truth" / "broken" / "000_mask.png", size=(90, 90))
    prints.add(mvtec.fingerprint())
    assert len(prints) == 8


def test_fingerprint_of_a_vanished_file_names_it(mvtec):
    mvtec.samples[3].image.unlink()
    with pytest.raises(UsageError, match=r"003\.png was removed"):
        mvtec.fingerprint()


def test_a_file_outside_the_root_is_refused():
    index = Index("x", Path("/data"), (Sample(Path("/other/a.png"), 0, "a"),), 0)
    with pytest.raises(
        UsageError, match=r"/other/a\.png lies outside /data, the folder of data set x"
    ):
        index.fingerprint()
