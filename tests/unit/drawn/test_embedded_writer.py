from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from crane.drawn import EMBEDDED_VERSION, drawn_dir, embedded_domain, make_embedded
from crane.drawn.scene import render
from crane.errors import UsageError


def files(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


@pytest.mark.long
def test_every_picture_lies_in_its_folder(boards_root):
    domain = embedded_domain("boards")
    expected = {"EMBEDDED_VERSION"}
    for p in domain.pictures():
        expected.add(f"{p.class_name}/{p.split}/{p.kind}/{p.number:03d}.png")
        if p.kind != "good":
            expected.add(f"{p.class_name}/ground_truth/{p.kind}/{p.number:03d}_mask.png")
    assert set(files(boards_root / "boards")) == expected
    assert not [p.name for p in boards_root.iterdir() if p.name.startswith(".")]


@pytest.mark.long
def test_files_hold_what_was_drawn(boards_root):
    domain = embedded_domain("boards")
    picture = next(p for p in domain.pictures() if p.kind == "burn" and p.number == 4)
    rendered = render(domain, picture)
    folder = boards_root / "boards" / picture.class_name
    image = Image.open(folder / "test" / "burn" / "004.png")
    mask = Image.open(folder / "ground_truth" / "burn" / "004_mask.png")
    assert (image.mode, image.size, mask.mode, mask.size) == ("RGB", (224, 224), "L", (224, 224))
    np.testing.assert_array_equal(np.asarray(image), rendered.image)
    np.testing.assert_array_equal(np.asarray(mask), 255 * rendered.mask)


def test_all_domains_are_made_and_then_left_alone(tmp_path, tiny, monkeypatch):
    root = tmp_path / "not" / "there"
    assert make_embedded(root) == root
    assert sorted(p.name for p in root.iterdir()) == ["boards", "fabrics", "parts", "photos"]

    def drawn_again(domain, picture):
        raise AssertionError("drawn although it is there")

    monkeypatch.setattr("crane.drawn.render", drawn_again)
    assert make_embedded(str(root), "parts") == root / "parts"


def test_another_version_is_replaced_whole(tmp_path, tiny):
    folder = make_embedded(tmp_path, "parts")
    fresh = files(folder)
    (folder / "EMBEDDED_VERSION").write_text("0\n")
    (folder / "washer" / "test" / "leftover.png").touch()
    make_embedded(tmp_path, "parts")
    assert files(folder) == fresh
    assert (folder / "EMBEDDED_VERSION").read_text().strip() == EMBEDDED_VERSION
    assert [p.name for p in tmp_path.iterdir()] == ["parts"]


def test_somebody_elses_folder_is_not_touched(tmp_path):
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "mine.txt").touch()
    with pytest.raises(
        UsageError,
        match=r"parts holds something other than drawn data.*move it away, or choose .*root",
    ):
        make_embedded(tmp_path, "parts")
    assert files(tmp_path) == ["parts/mine.txt"]


def test_an_empty_folder_may_be_filled(tmp_path, tiny):
    (tmp_path / "parts").mkdir()
    assert "washer/test/good/000.png" in files(make_embedded(tmp_path, "parts"))


def test_an_interrupted_run_leaves_nothing(tmp_path, tiny, monkeypatch):
    drawn = []

    def interrupted(domain, picture):
        if len(drawn) == 2:
            raise KeyboardInterrupt
        drawn.append(picture)
        return render(domain, picture)

    monkeypatch.setattr("crane.drawn.render", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make_embedded(tmp_path, "parts")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("start", ["nothing", "an older version"])
def test_several_at_once_make_one(tmp_path, tiny, start):
    if start == "an older version":
        (make_embedded(tmp_path, "parts") / "EMBEDDED_VERSION").write_text("0\n")
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(make_embedded, [tmp_path] * 4, ["parts"] * 4))
    assert set(made) == {tmp_path / "parts"}
    assert [p.name for p in tmp_path.iterdir()] == ["parts"]
    assert (tmp_path / "parts" / "EMBEDDED_VERSION").read_text().strip() == EMBEDDED_VERSION
    assert len(files(tmp_path / "parts")) == 1 + 2 + 3 * 2


def test_an_unknown_domain_makes_nothing(tmp_path):
    with pytest.raises(UsageError, match="unknown drawn domain"):
        make_embedded(tmp_path / "new", "toys")
    assert not (tmp_path / "new").exists()


def test_by_default_they_lie_in_the_users_cache(tmp_path, tiny, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CRANE_CACHE", str(tmp_path / "cache"))
    folder = make_embedded(domain="parts")
    assert folder == tmp_path / "cache" / "drawn" / f"v{EMBEDDED_VERSION}" / "parts"
    assert [p.name for p in tmp_path.iterdir()] == ["cache"], "nothing in the working folder"
    monkeypatch.delenv("CRANE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert drawn_dir().as_posix() == f"/xdg/crane/drawn/v{EMBEDDED_VERSION}"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/me")
    assert drawn_dir().as_posix() == f"/home/me/.cache/crane/drawn/v{EMBEDDED_VERSION}"


def test_a_folder_that_cannot_be_written_is_named_with_its_key(tiny):
    message = r"cannot write to /proc/x: .*; choose another source\.embedded_parts\.root"
    with pytest.raises(UsageError, match=message):
        make_embedded("/proc/x", "parts")
