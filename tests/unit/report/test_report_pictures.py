import json

import pytest

from crane.report import find_runs, first_runs
from crane.report.page import gather_pictures, legend


@pytest.fixture
def first(make_run, tmp_path):
    make_run("a", started="1")
    make_run("b", started="2")
    runs, _ = find_runs([tmp_path / "runs"])
    return first_runs(runs, ["a", "b"])


def test_an_image_stands_beside_itself_under_every_setting(first):
    gallery = gather_pictures(first, max_pictures=100)
    shown = [(one.picture.name, one.setting) for one in gallery.pictures]
    images = ["001.png", "003.png", "000.png", "002.png"]  # the anomalous ones first
    assert shown == [(name, setting) for name in images for setting in "ab"]
    assert gallery.num_left_out == 0
    assert [dict(scale) for scale in gallery.scales] == [
        {"vmin": 0.0, "vmax": 1.0, "colormap": "inferno"}
    ]


def test_a_picture_says_all_that_it_was_chosen_as(first):
    gallery = gather_pictures(first, max_pictures=100)
    choices = {one.picture.name: set(one.choices) - {"random"} for one in gallery.pictures}
    assert choices == {
        "000.png": {"best"},  # normal, the lowest score
        "002.png": {"worst"},
        "001.png": {"worst"},
        "003.png": {"best"},
    }
    chosen_by_chance = [one for one in gallery.pictures if "random" in one.choices]
    assert len(chosen_by_chance) == 4  # a normal and an anomalous one a setting


def test_the_picture_itself_is_in_its_source(first):
    one = gather_pictures(first, max_pictures=100).pictures[0]
    assert one.source.startswith("data:image/webp;base64,")
    assert one.path.read_bytes()[8:12] == b"WEBP"


@pytest.mark.parametrize(("room", "kept"), [(8, 8), (7, 6), (5, 4), (2, 2), (1, 1), (0, 0)])
def test_whole_images_are_left_out_where_there_is_no_room(first, room, kept):
    gallery = gather_pictures(first, max_pictures=room)
    assert (len(gallery.pictures), gallery.num_left_out) == (kept, 8 - kept)


def test_files_that_are_gone_are_left_out(first, caplog):
    first["a"].folder.joinpath("gallery", "alpha", "0000.webp").unlink()
    assert len(gather_pictures(first, 100).pictures) == 7
    assert "alpha/0000.webp is missing" in caplog.text


def alter(run, change):
    """Change the content of a run's gallery.json."""
    path = run.folder / "gallery" / "gallery.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.fixture
def secret(tmp_path):
    """A picture outside every run."""
    path = tmp_path / "secret.webp"
    path.write_bytes(b"RIFF0000WEBP secret")
    return path


@pytest.mark.parametrize("name", ["{}", "../../../secret.webp", "link.webp", "folder/secret.webp"])
def test_files_outside_a_runs_folder_are_named_and_left_out(first, secret, caplog, name):
    gallery, name = first["a"].folder / "gallery", name.format(secret)
    (gallery / "link.webp").symlink_to(secret)
    (gallery / "folder").symlink_to(secret.parent)
    alter(first["a"], lambda content: content["pictures"][0].update(file=name))
    shown = gather_pictures(first, 100).pictures
    assert secret.resolve() not in [one.path.resolve() for one in shown]
    assert f"{name} is outside the run's folder" in caplog.text
    assert {one.setting for one in shown} == {"a", "b"}


def test_a_gallery_elsewhere_is_left_out_whole(first, tmp_path, caplog):
    gallery = first["a"].folder / "gallery"
    gallery.rename(tmp_path / "elsewhere")
    gallery.symlink_to(tmp_path / "elsewhere")
    assert {one.setting for one in gather_pictures(first, 100).pictures} == {"b"}
    assert "is outside the run's folder" in caplog.text


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../record.json", "is not a WebP picture"),
        ("gallery.json", "is not a WebP picture"),
        (".", "is missing"),
        ("", "is missing"),
        ("a\0b", "cannot be read"),
        ("circle", "cannot be read"),
    ],
)
def test_files_that_are_no_pictures_are_named_and_left_out(first, caplog, name, reason):
    (first["a"].folder / "gallery" / "circle").symlink_to("circle")
    alter(first["a"], lambda content: content["pictures"][0].update(file=name))
    assert all(one.path.suffix == ".webp" for one in gather_pictures(first, 100).pictures)
    assert reason in caplog.text


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.pop("scale"),
        lambda content: content.pop("pictures"),
        lambda content: content.update(pictures=[1]),
        lambda content: content["pictures"][0].pop("label"),
        lambda content: content["pictures"][0].update(label="<b>"),
        lambda content: content["pictures"][0].update(score="high"),
        lambda content: content["pictures"][0].update(file=["x"]),
        lambda content: content["pictures"][0].update(more=1),
        lambda content: content["scale"].update(colormap="url(https://example.org)"),
        lambda content: content["scale"].update(vmax="}"),
        lambda content: content["scale"].update(more=1),
    ],
)
def test_a_gallery_of_another_form_is_named_and_left_out(first, caplog, change):
    alter(first["a"], change)
    assert {one.setting for one in gather_pictures(first, 100).pictures} == {"b"}
    assert "gallery.json" in caplog.text


def test_scales_that_differ_are_all_named(make_run, tmp_path):
    make_run("a", started="1")
    make_run("b", started="2", vmax=0.5)
    make_run("c", started="3", findings=False)
    runs, _ = find_runs([tmp_path / "runs"])
    gallery = gather_pictures(first_runs(runs, ["a", "b", "c"]), 100)
    assert [scale["vmax"] for scale in gallery.scales] == [1.0, 0.5]


def test_the_legend_has_the_scales_ends_and_colours():
    made = legend({"vmin": 0.2, "vmax": 0.8, "colormap": "inferno"})
    assert made["values"] == ["0.2", "0.5", "0.8"]
    stops = made["gradient"].split(", ")
    assert (stops[0], stops[-1]) == ("#000004", "#fcffa4")
