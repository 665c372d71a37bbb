import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from crane import drawn
from crane.data.images import read_mask, read_rgb
from crane.drawn import embedded_domain, embedded_domains, index_embedded, make_embedded
from crane.errors import UsageError
from crane.gate import build
from crane.types import ANOMALOUS

pytestmark = pytest.mark.long

CONF = Path(__file__).parents[3] / "conf" / "dataset"


def test_the_index_lists_every_test_image(boards):
    domain = embedded_domain("boards")
    assert boards.name == "embedded_boards"
    assert boards.class_names == tuple(sorted(domain.classes))
    assert (boards.num_normal, boards.num_anomalous) == (3 * 16, 3 * 18)
    for sample in boards.samples:
        assert (sample.mask is not None) == (sample.label == ANOMALOUS)
        assert sample.defect in ("good", *domain.kinds[sample.class_name])


def test_images_and_masks_open(boards):
    sample = next(s for s in boards.samples if s.defect == "skewed")
    assert read_rgb(sample.image).size == (224, 224)
    mask = read_mask(sample.mask, boards.mask_threshold)
    assert 10 <= np.count_nonzero(mask) <= 224 * 224 // 4


def test_the_train_split_is_normal(boards_root):
    index = index_embedded(
        "e", boards_root, "boards", "train", mask_threshold=0, classes=["matrix"]
    )
    assert (index.class_names, index.num_normal, index.num_anomalous) == (("matrix",), 4, 0)


def test_it_is_drawn_where_it_is_not_there(tmp_path, tiny):
    index = index_embedded("e", tmp_path / "new", "photos", "test", mask_threshold=0)
    assert (index.num_normal, index.num_anomalous) == (1, 3)


def test_every_domain_has_its_yaml():
    written = {path.stem for path in CONF.glob("embedded_*.yaml")}
    assert written == {f"embedded_{name}" for name in embedded_domains()}


@pytest.mark.parametrize("domain", embedded_domains())
def test_a_yaml_names_its_domain_and_its_cost(domain):
    path = CONF / f"embedded_{domain}.yaml"
    (name, node) = next(iter(OmegaConf.load(path).items()))
    assert name == node.name == path.stem
    assert node.domain == domain
    assert f"({len(embedded_domain(domain).pictures())} images," in path.read_text()


def test_a_yaml_builds_its_index(boards, boards_root):
    node = OmegaConf.load(CONF / "embedded_boards.yaml").embedded_boards
    assert node.root is None, "the user's cache"
    node.root = str(boards_root)
    built = build(node, "targets.embedded_boards")
    assert built.fingerprint() == boards.fingerprint()


def test_a_misspelt_domain_is_refused(tmp_path):
    with pytest.raises(UsageError, match="domain"):
        index_embedded("e", tmp_path, "board", "test", mask_threshold=0)


def test_a_killed_drawing_leaves_nothing_half_and_is_drawn_again(tmp_path, tiny, monkeypatch):
    whole = make_embedded(tmp_path / "undisturbed", "boards")
    save = drawn._save
    child = os.fork()
    if child == 0:  # pragma: no cover  # ends by a signal
        monkeypatch.setattr(drawn, "_save", lambda *given: (save(*given), time.sleep(0.5)))
        make_embedded(tmp_path / "killed", "boards")
        os._exit(0)
    deadline = time.monotonic() + 60
    while not list((tmp_path / "killed").rglob("*.png")) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert not (tmp_path / "killed" / "boards").exists()
    again = make_embedded(tmp_path / "killed", "boards")
    files = [path.relative_to(whole) for path in whole.rglob("*") if path.is_file()]
    assert sorted(files) == sorted(p.relative_to(again) for p in again.rglob("*") if p.is_file())
    assert all((again / file).read_bytes() == (whole / file).read_bytes() for file in files)
