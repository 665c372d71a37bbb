"""W&B's offline runs, read back from disk: everything that docs/wandb.md promises is there."""

import json

import pytest

from wandb_reader import logged, records

KINDS = ("image_roc", "image_pr", "pixel_roc", "pixel_pr", "pro")


@pytest.fixture
def wandb_run(crane, tiny, use, tmp_path, monkeypatch):
    """Type `crane train logger=wandb` and give the run's folder and its offline run."""
    monkeypatch.delenv("WANDB_API_KEY", raising=False)

    def run(*overrides):
        folder = tmp_path / "run"
        data = [*use("source", "alpha"), *use("targets", "gamma")]
        outcome = crane("train", *tiny, *data, "logger=wandb", *overrides, f"run_dir={folder}")
        assert outcome.code == 0, outcome.err
        (offline,) = (folder / "wandb").glob("offline-run-*")
        return folder, offline

    return run


def test_tables_curves_pictures_and_prompts_are_logged(wandb_run):
    folder, offline = wandb_run("trainer.log_every_n_steps=1")
    values = logged(offline)
    result = json.loads((folder / "results.json").read_text())["datasets"][0]
    means = {name: value for name, value in result["means"].items() if value is not None}
    assert means
    for name, value in means.items():
        assert values[f"test/gamma/{name}"] == pytest.approx(value, abs=1e-6)
    assert {"train/loss", "train/focal", "train/dice", "train/image"} <= set(values)

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
    assert pictures
    assert all(path.stat().st_size > 100 for path in pictures)
    masks = [m for m in images["all_masks"] if m]
    assert masks
    assert all((offline / "files" / mask["truth"]["path"]).is_file() for mask in masks)


def test_the_prompts_are_an_artifact_and_the_run_is_tagged(wandb_run):
    folder, offline = wandb_run("attention=vv")
    kinds = {record.WhichOneof("record_type"): record for record in records(offline)}
    assert {"run", "history", "stats", "exit"} <= set(kinds)  # stats: of the machine
    assert kinds["exit"].exit.exit_code == 0
    artifacts = [r.artifact for r in records(offline) if r.WhichOneof("record_type") == "artifact"]
    (artifact,) = [one for one in artifacts if one.type == "prompts"]
    (entry,) = artifact.manifest.contents
    assert entry.path == "epoch_1.safetensors"
    assert entry.size == (folder / "prompts" / entry.path).stat().st_size
    tags = set(kinds["run"].run.tags)
    assert {"attention:vv", "method:crane", "guide:none"} <= tags
    assert not kinds["run"].run.run_group


def test_jobs_of_a_multirun_are_a_group_and_named_by_what_varies(crane, tiny, use, tmp_path):
    sweep = f"hydra.sweep.dir={tmp_path / 'two_seeds'}"
    data = [*use("source", "alpha"), *use("targets", "gamma")]
    outcome = crane("train", *tiny, *data, "-m", "seed=1,2", "logger=wandb", sweep)
    assert outcome.code == 0, outcome.err
    found = {}
    for offline in (tmp_path / "two_seeds").glob("*/wandb/offline-run-*"):
        runs = [r.run for r in records(offline) if r.WhichOneof("record_type") == "run"]
        found[runs[0].display_name] = (runs[0].run_group, offline)
    assert len(found) == 2
    assert all(f"seed={seed}" in " ".join(found) for seed in (1, 2))
    assert {group for group, _ in found.values()} == {"two_seeds"}
