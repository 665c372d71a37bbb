"""W&B's offline runs, read back from disk: everything that docs/wandb.md promises is there."""

import json

import pytest

from wandb_reader import logged, records

KINDS = ("image_roc", "image_pr", "pixel_roc", "pixel_pr", "pro")


@pytest.fixture
def wandb_run(crane, tiny, use, tmp_path, monkeypatch):
    """Type `crane train logger=wandb`; give the run's folder, its offline run and what was said."""
    monkeypatch.delenv("WANDB_API_KEY", raising=False)

    def run(*overrides):
        folder = tmp_path / "run"
        data = [*use("source", "alpha"), *use("targets", "gamma")]
        outcome = crane("train", *tiny, *data, "logger=wandb", *overrides, f"run_dir={folder}")
        assert outcome.code == 0, outcome.err
        (offline,) = (folder / "wandb").glob("offline-run-*")
        return folder, offline, outcome

    return run


def of_kind(offline, kind):
    """The records of one kind in an offline run."""
    every = (r for r in records(offline) if r.WhichOneof("record_type") == kind)
    return [getattr(record, kind) for record in every]


@pytest.mark.long
def test_tables_curves_pictures_and_prompts_are_logged(wandb_run):
    folder, offline, _ = wandb_run("trainer.log_every_n_steps=1", "data.validation_fraction=0.34")
    values = logged(offline)
    result = json.loads((folder / "results.json").read_text())["datasets"][0]
    means = {name: value for name, value in result["means"].items() if value is not None}
    assert means
    for name, value in means.items():
        assert values[f"test/gamma/{name}"] == pytest.approx(value, abs=1e-6)
    assert {"train/loss", "train/focal", "train/dice", "train/image", "val/mean"} <= set(values)

    table = json.loads((offline / "files" / values["results/gamma"]["path"]).read_text())
    assert table["columns"][:4] == ["dataset", "class", "num_normal", "num_anomalous"]
    assert [row[1] for row in table["data"]] == [*result["classes"], "mean"]
    place = table["columns"].index("image_auroc")
    assert table["data"][-1][place] == pytest.approx(means["image_auroc"])

    for kind in KINDS:
        chart = json.loads(
            (offline / "files" / values[f"curves/gamma/{kind}_table"]["path"]).read_text()
        )
        assert len(chart["data"]) > 2
        assert {row[1] for row in chart["data"]} <= set(result["classes"])

    images = values["images/gamma"]
    pictures = [offline / "files" / name for name in images["filenames"]]
    assert all(path.stat().st_size > 100 for path in pictures)
    maps = [caption for caption in images["captions"] if caption.startswith("map: ")]
    assert len(pictures) == 2 * len(maps) > 0  # each image, then its map
    masks = [m for m in images["all_masks"] if m]
    assert len(masks) == len(maps)
    assert all((offline / "files" / mask["truth"]["path"]).is_file() for mask in masks)


def test_the_prompts_are_an_artifact_and_the_run_is_tagged(wandb_run):
    folder, offline, outcome = wandb_run("attention=vv")
    assert f"wandb sync {folder}/wandb/offline-run-" in outcome.out + outcome.err
    (artifact,) = [one for one in of_kind(offline, "artifact") if one.type == "prompts"]
    (entry,) = artifact.manifest.contents
    assert entry.path == "epoch_1.safetensors"
    assert entry.size == (folder / "prompts" / entry.path).stat().st_size
    assert len(json.loads(artifact.metadata)["sources"]["source.alpha"]) == 64

    (about,) = of_kind(offline, "run")
    assert about.project == "crane"
    assert not about.run_group
    assert {"attention:vv", "method:crane", "guide:none"} <= set(about.tags)
    config = {item.key for one in of_kind(offline, "config") for item in one.update}
    assert {"attention", "prompt", "seed", "trainer"} <= config
    machine = {item.key for one in of_kind(offline, "stats") for item in one.item}
    assert any("memory" in key for key in machine), machine
    assert [one.exit_code for one in of_kind(offline, "exit")] == [0]


@pytest.mark.long
def test_jobs_of_a_multirun_are_a_group_and_end_one_by_one(crane, tiny, use, tmp_path):
    import wandb

    sweep = tmp_path / "two_seeds"
    data = [*use("source", "alpha"), *use("targets", "gamma")]
    varied = ("-m", "optimizer.lr=0.001,1e30", "seed=1,2", f"hydra.sweep.dir={sweep}")
    held_out = ("data.validation_fraction=0.34", "logger=wandb", "results_store=null")
    outcome = crane("train", *tiny, *data, *held_out, *varied)
    assert outcome.code == 1  # two jobs end with a loss that is not a number, once they have begun
    assert wandb.run is None
    ended = {}
    for offline in sweep.glob("*/wandb/offline-run-*"):
        (about,) = of_kind(offline, "run")
        assert about.run_group == "two_seeds"
        (end,) = of_kind(offline, "exit")
        ended[about.display_name] = (end.exit_code, about.run_id)
    assert len({run_id for _, run_id in ended.values()}) == 4
    assert {name: code for name, (code, _) in ended.items()} == {
        **{f"optimizer.lr=0.001,seed={seed}": 0 for seed in (1, 2)},
        **{f"optimizer.lr=1e+30,seed={seed}": 1 for seed in (1, 2)},
    }
