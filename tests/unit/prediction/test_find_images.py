import os
import re
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crane.errors import UsageError
from crane.prediction.inputs import ImageList, find_images


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Empty files: finding images does not open them."""
    names = ["b.JPG", "a.png", "a.jpg", "left/1.png", "right/1.png", "right/deep/2.tiff"]
    for name in [*names, "notes.md", "._b.JPG", ".cache/hidden.png", "right/Thumbs.db"]:
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "photos"


def names(images: ImageList) -> list[str]:
    return [Path(path).relative_to(images.root).as_posix() for path in images.paths]


def test_folder_gives_all_images_below_it_sorted(photos: Path) -> None:
    images = find_images(str(photos))
    assert images.root == photos
    assert names(images) == [
        "a.jpg", "a.png", "b.JPG", "left/1.png", "right/1.png", "right/deep/2.tiff",
    ]  # fmt: skip


def test_glob(photos: Path) -> None:
    images = find_images(f"{photos}/*/1.*")
    assert names(images) == ["left/1.png", "right/1.png"]
    assert images.root == photos
    assert len(find_images(f"{photos}/**/*.png")) == 3
    assert len(find_images(f"{photos}/**")) == 6


def test_a_file_is_taken_whatever_its_name(photos: Path) -> None:
    assert find_images(photos / "notes.md").paths == (str(photos / "notes.md"),)


def test_a_name_with_brackets_is_a_file_before_it_is_a_glob(photos: Path) -> None:
    odd = photos / "scan[1].png"
    odd.touch()
    assert find_images(str(odd)).paths == (str(odd),)


def test_list_file_is_relative_to_itself(photos: Path) -> None:
    lines = "# three of them\nright/gone.png\nleft/1.png\n\n  right/1.png  \n"
    (photos / "list.txt").write_text(lines)
    images = find_images(photos / "list.txt")
    assert names(images) == ["right/gone.png", "left/1.png", "right/1.png"], "in its own order"
    assert images.root == photos
    assert list(images) == list(images.paths)


def test_list_file_may_name_files_anywhere(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (photos / "right" / "list.lst").write_text(f"1.png\n{photos}/left/1.png\n", "utf-8-sig")
    monkeypatch.chdir(photos / "right")
    images = find_images("list.lst")
    assert list(images.paths) == ["1.png", f"{photos}/left/1.png"]
    assert images.root == photos
    assert images.output("maps", "1.png", ".png") == Path("maps/right/1.png.png")


def test_list_beside_other_entries_is_sorted_with_them(photos: Path) -> None:
    (photos / "list.txt").write_text("right/1.png\na.png\n")
    images = find_images([photos / "list.txt", photos / "left", photos / "a.png"])
    assert names(images) == ["a.png", "left/1.png", "right/1.png"]


def test_list_that_changes_under_way_is_noticed(photos: Path) -> None:
    (photos / "list.txt").write_text("left/1.png\n")
    images = find_images(photos / "list.txt")
    (photos / "list.txt").write_text("left/1.png\nright/1.png\n")
    with pytest.raises(UsageError, match="changed while it was predicted on"):
        list(images)


def test_fingerprint_is_of_the_names_and_their_order(photos: Path) -> None:
    written = [
        "left/1.png\nright/1.png\n",
        "left/1.png\n\n#\nright/1.png",
        "right/1.png\nleft/1.png",
    ]
    found = []
    for text in written:
        (photos / "list.txt").write_text(text)
        found.append(find_images(photos / "list.txt").fingerprint())
    assert found[0] == found[1] != found[2]
    assert found[0] == find_images([photos / "left", f"{photos}/right/*.png"]).fingerprint()


@pytest.mark.long
def test_long_lists_are_not_held_in_memory(tmp_path: Path) -> None:
    with (tmp_path / "list.txt").open("w") as lines:
        lines.writelines(f"folder/{place:0100d}.png\n" for place in range(20_000))  # 2.2 MB
    tracemalloc.start()
    images = find_images(tmp_path / "list.txt")
    images.fingerprint()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(images) == 20_000
    assert peak < 300_000


def test_several_entries_are_joined_each_image_once(photos: Path) -> None:
    images = find_images([photos / "left", photos / "right/deep", str(photos / "left/1.png")])
    assert images.root == photos
    assert names(images) == ["left/1.png", "right/deep/2.tiff"]


def test_detours_in_paths_do_not_lead_outputs_astray(photos: Path) -> None:
    images = find_images([f"{photos}/left/../right", f"{photos}/left"])
    outputs = [images.output("maps", path, ".png") for path in images.paths]
    assert [path.as_posix() for path in outputs] == [
        "maps/left/1.png.png",
        "maps/right/1.png.png",
        "maps/right/deep/2.tiff.png",
    ]


def test_relative_paths_stay_relative(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(photos)
    images = find_images("left")
    assert images.paths == ("left/1.png",)
    assert images.output("maps", "left/1.png", ".npy") == Path("maps/1.png.npy")


def test_links_are_followed_and_loops_end(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "3.png").touch()
    (photos / "linked").symlink_to(tmp_path / "elsewhere")
    (photos / "right" / "loop").symlink_to(photos)
    found = names(find_images(photos))
    assert "linked/3.png" in found
    assert len(found) == 7


def test_outputs_of_an_earlier_run_are_left_out(photos: Path) -> None:
    (photos / "out" / "maps").mkdir(parents=True)
    (photos / "out" / "maps" / "a.png.png").touch()
    assert len(find_images(photos)) == 7
    assert len(find_images(photos, exclude=photos / "out")) == 6
    with pytest.raises(UsageError, match=r"all images lie in .*out, .*; choose another output"):
        find_images(photos / "out", exclude=photos / "out")


@pytest.mark.parametrize(
    ("entry", "wanted"),
    [
        ("gone.png", "there is no file or folder"),
        ("empty", "there is no image below"),
        ("*.webp", "no image matches"),
    ],
)
def test_nothing_found_is_an_error_that_says_what(entry: str, wanted: str, photos: Path) -> None:
    (photos / "empty").mkdir()
    with pytest.raises(UsageError, match=f"^input: {wanted} .*{re.escape(entry)}"):
        find_images(photos / entry)
    with pytest.raises(UsageError, match=f"^calibration.input: {wanted}"):
        find_images([photos, photos / entry], key="calibration.input")


def test_empty_lists_are_errors(photos: Path) -> None:
    (photos / "list.txt").write_text("# nothing\n")
    with pytest.raises(UsageError, match="names no image"):
        find_images([photos / "list.txt", photos / "left"])
    with pytest.raises(UsageError, match="names no image"):
        find_images(photos / "list.txt")
    (photos / "list.txt").write_bytes(b"\xff\xfe\n")
    with pytest.raises(UsageError, match="is not text in UTF-8"):
        find_images(photos / "list.txt")


@pytest.mark.parametrize("spec", [None, "", [], [""]])
def test_what_names_no_images_is_refused(spec: str | list[str] | None) -> None:
    with pytest.raises(UsageError, match=r"^input must name a file, folder, glob or list"):
        find_images(spec)


PARTS = st.lists(st.sampled_from(["a", "b", "a.jpg", "b.png", "a.jpg.png"]), min_size=1, max_size=3)


@settings(max_examples=100, deadline=None)
@given(files=st.lists(PARTS, min_size=1, max_size=8))
def test_no_two_images_share_an_output(files: list[list[str]]) -> None:
    paths = sorted({str(Path("root", *parts)) for parts in files})
    images = ImageList(Path("root"), tuple(paths))
    outputs = {images.output("maps", path, ".png") for path in paths}
    assert len(outputs) == len(paths)
    assert all(os.pardir not in output.parts for output in outputs)
