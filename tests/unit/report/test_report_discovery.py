import hashlib
import json
import re
from dataclasses import asdict

import pytest
import yaml

from crane.errors import UsageError
from crane.files import write_json
from crane.report import differing_keys, find_runs, label_runs, summarise
from crane.runs import StoredRun, store_run
from crane.runs.record import JOB_FILE, SKIPPED, STARTED, JobOutcome
from crane.runs.store import FAILED, FINISHED


def test_runs_come_in_the_order_in_which_they_began(make_run, tmp_path):
    make_run("a", started="2026-01-02T00:00:00+00:00", findings=False)
    make_run("b", started="2026-01-01T00:00:00+00:00", findings=False)
    runs, left_out = find_runs([tmp_path / "runs"])
    assert [run.folder.name for run in runs] == ["b", "a"]
    assert left_out == []


def test_a_run_named_twice_counts_once(make_run, tmp_path):
    folder = make_run("a", findings=False)
    runs, _ = find_runs([folder, tmp_path / "runs", tmp_path / "runs" / "." / "a"])
    assert len(runs) == 1


def test_what_a_run_measured_was_and_is_read(make_run):
    (run,), _ = find_runs([make_run("a", 0.25, seed=7, findings=False)])
    assert run.results[0].values["aupro"] == (0.25, 0.35)
    assert run.seed == run.config["seed"] == 7
    assert run.record["command"] == "crane train"


def test_runs_without_results_are_named(make_run, tmp_path):
    make_run("whole", findings=False)
    cut = make_run("cut", findings=False)
    (cut / "results.json").unlink()
    runs, left_out = find_runs([tmp_path / "runs"])
    assert [run.folder.name for run in runs] == ["whole"]
    assert [one.folder for one in left_out] == [cut]


@pytest.mark.parametrize(
    ("ended", "data", "test", "is_named"),
    [
        ("2026-01-01", {"source.a": "f"}, True, False),
        ("2026-01-01", {"source.a": "f", "targets.b": "f"}, False, False),
        ("2026-01-01", {"source.a": "f", "targets.b": "f"}, True, True),
        (None, {"source.a": "f"}, True, True),
    ],
)
def test_a_finished_training_without_targets_lacks_nothing(make_run, ended, data, test, is_named):
    make_run("whole", findings=False)
    folder = make_run("training", config={"test": test}, findings=False)
    (folder / "results.json").unlink()
    (folder / "record.json").write_text(json.dumps({"ended": ended, "data": data}))
    _, left_out = find_runs([folder.parent])
    assert [one.folder for one in left_out] == [folder] * is_named


@pytest.fixture
def make_job(tmp_path):
    """Write the folder of a job of a multirun that left no results."""

    def make(number, status, **facts):
        folder = tmp_path / "sweep" / f"{number}_job"
        (folder / "hydra").mkdir(parents=True)
        outcome = JobOutcome(number, ("attention=vv",), seed=1, status=status, **facts)
        write_json(folder / JOB_FILE, asdict(outcome))
        (folder / "hydra" / "config.yaml").write_text("results_store: runs/store")
        (folder / "hydra" / "hydra.yaml").write_text(f"hydra: {{runtime: {{cwd: '{tmp_path}'}}}}")
        return folder

    return make


def store(tmp_path, folder):
    run = StoredRun("s", "train", FINISHED, str(folder), 1, (), (), {}, run_id="earlier")
    store_run(tmp_path / "runs" / "store", run)


def test_for_a_skipped_job_stands_the_run_finished_before(make_run, make_job, tmp_path):
    earlier = make_run("earlier", 0.25, findings=False)
    store(tmp_path, earlier)
    job = make_job(0, SKIPPED, run_id="earlier")
    for paths in ([job.parent], [job.parent, earlier]):
        (run,), left_out = find_runs(paths)
        assert run.folder == earlier
        assert left_out == []


def test_a_training_without_targets_that_was_skipped_lacks_nothing(make_run, make_job, tmp_path):
    earlier = make_run("earlier", findings=False)
    (earlier / "results.json").unlink()
    (earlier / "record.json").write_text('{"ended": "2026-01-01", "data": {}}')
    store(tmp_path, earlier)
    job = make_job(0, SKIPPED, run_id="earlier")
    assert find_runs([job.parent, make_run("whole", findings=False)])[1] == []


def test_jobs_that_left_nothing_are_named_with_the_reason(make_run, make_job, tmp_path):
    store(tmp_path, tmp_path / "gone")
    jobs = [
        make_job(0, FAILED, error="out of memory\nmore of it"),
        make_job(1, STARTED),
        make_job(2, SKIPPED, run_id="earlier"),
        make_job(3, SKIPPED, run_id="another"),
        make_job(4, SKIPPED),
    ]
    (jobs[0] / "record.json").write_text("{}")
    _, left_out = find_runs([tmp_path / "sweep", make_run("whole", findings=False)])
    assert [one.folder for one in left_out] == jobs
    reasons = [one.reason for one in left_out]
    assert reasons[:2] == ["failed: out of memory", "under way or killed"]
    assert reasons[2] == f"skipped, and the run finished before is no longer in {tmp_path / 'gone'}"
    no_longer = "skipped, and the results store no longer has the run finished before"
    assert reasons[3:] == [no_longer] * 2


@pytest.fixture
def make_test(make_run, tmp_path):
    """Write the folders of a training and of a test of its prompts."""

    def make(name, seed, attention, *, test_seed=1, typed="", value=0.5):
        config = {"attention": attention, "loss": {"of": attention}}
        training = make_run(f"t_{name}", seed=seed, config=config, findings=False)
        (training / "results.json").unlink()
        (training / "record.json").write_text(
            json.dumps({"seed": seed, "command": f"crane train attention={attention} seed={seed}"})
        )
        prompts = training / "prompts" / "epoch_1.safetensors"
        prompts.parent.mkdir()
        prompts.write_text(name)
        config = {"attention": attention, "checkpoint": str(prompts)}
        folder = make_run(name, value, seed=test_seed, config=config, findings=False)
        digest = hashlib.sha256(name.encode()).hexdigest()
        record = {"seed": test_seed, "started": name, "weights": {"prompts": digest}}
        command = f"crane test checkpoint={prompts} {typed}"
        (folder / "record.json").write_text(json.dumps({**record, "command": command}))
        return folder

    return make


def test_tests_of_a_trainings_seeds_are_one_setting(make_test):
    folders = [
        make_test("a", 1, "vv", value=0.5),
        make_test("b", 2, "vv", value=0.7),
        make_test("c", 1, "qq"),
    ]
    runs, _ = find_runs(folders)
    assert [run.seed for run in runs] == [1, 2, 1]
    labels = label_runs(runs)
    assert labels == ["attention=vv", "attention=vv", "attention=qq"]
    assert differing_keys(runs) == {
        "attention": ["vv", "vv", "qq"],
        "training.loss.of": ["vv", "vv", "qq"],
    }
    row = summarise(runs, labels)[1]
    assert row.metrics["aupro"].values == (0.5, 0.7)


def test_what_a_test_typed_tells_apart_too(make_test):
    folders = [make_test("a", 1, "vv", typed="image_size=28"), make_test("b", 2, "vv")]
    for folder, size in zip(folders, (28, 56), strict=True):
        with (folder / "config.yaml").open("a") as file:
            file.write(f"image_size: {size}\n")
    runs, _ = find_runs(folders)
    assert label_runs(runs) == ["image_size=28", "image_size=default"]


@pytest.mark.parametrize("change", ["gone", "another"])
def test_a_checkpoint_that_is_no_longer_there_is_told_by_its_path(make_test, change):
    folders = [make_test("a", 1, "vv"), make_test("b", 2, "vv")]
    for name in "ab":
        prompts = folders[0].parent / f"t_{name}" / "prompts" / "epoch_1.safetensors"
        prompts.unlink() if change == "gone" else prompts.write_text("of another training")
    runs, _ = find_runs(folders)
    assert [run.training for run in runs] == [None, None]
    assert len(set(label_runs(runs))) == 2


def test_a_relative_checkpoint_is_found_from_where_the_test_began(make_test, tmp_path, monkeypatch):
    folder = make_test("a", 1, "vv")
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace(f"{tmp_path}/", ""))
    (folder / "hydra").mkdir()
    (folder / "hydra" / "hydra.yaml").write_text(f"hydra: {{runtime: {{cwd: '{tmp_path}'}}}}")
    monkeypatch.chdir("/")
    ((run,), _) = find_runs([folder])
    assert run.training is not None


def test_results_alone_are_a_run(make_run):
    folder = make_run("old", findings=False)
    for name in ("record.json", "config.yaml"):
        (folder / name).unlink()
    (run,), _ = find_runs([folder])
    assert run.seed is None
    assert run.config == run.record == {}


def test_a_path_that_is_no_folder_and_one_without_runs_are_refused(tmp_path):
    with pytest.raises(UsageError, match=r"paths: .*nowhere does not exist"):
        find_runs([tmp_path / "nowhere"])
    with pytest.raises(UsageError, match=r"paths: found no results\.json to show in"):
        find_runs([tmp_path])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("results.json", "{}"),
        ("results.json", "[]"),
        ("results.json", '{"datasets": [{"dataset": "alpha", "means": [], "classes": {}}]}'),
        ("results.json", "[" * 100_000),
        ("record.json", "{half"),
        ("record.json", "[1]"),
        ("record.json", '{"seed": [1]}'),
        ("record.json", '{"weights": ["clip"]}'),
        ("record.json", '{"data": {"targets.alpha": 1}}'),
        ("record.json", '{"command": "crane train \'"}'),
        ("record.json", '{"started": 5}'),
        ("config.yaml", "- a\n- list: ]"),
        ("config.yaml", "just text"),
        ("config.yaml", "seed: one"),
        ("config.yaml", "a: &a {b: *a}"),
        ("config.yaml", "\0"),
    ],
)
def test_a_run_with_a_damaged_file_is_named_and_left_out(make_run, name, text):
    damaged, whole = make_run("a", findings=False), make_run("b", findings=False)
    (damaged / name).write_text(text)
    runs, left_out = find_runs([damaged.parent])
    assert [run.folder for run in runs] == [whole]
    assert [one.folder for one in left_out] == [damaged]
    assert re.search(rf"{name} is (damaged or|not the results.json of)", left_out[0].reason)
    with pytest.raises(UsageError, match=rf"found no results\.json .*{name} is (damaged|not)"):
        find_runs([damaged])


@pytest.mark.parametrize(
    "text", ["{half", '{"number": "one", "varies": [], "seed": 1, "status": "x"}']
)
def test_a_damaged_job_file_is_named(make_run, make_job, text):
    job = make_job(0, STARTED)
    (job / JOB_FILE).write_text(text)
    _, left_out = find_runs([job.parent, make_run("whole", findings=False)])
    assert [one.folder for one in left_out] == [job]
    assert JOB_FILE in left_out[0].reason


def test_a_class_named_as_the_mean_is_left_out(make_run):
    folder, whole = make_run("a", findings=False), make_run("b", findings=False)
    file = folder / "results.json"
    file.write_text(file.read_text().replace('"nut": {', '"mean": {'))
    runs, left_out = find_runs([folder, whole])
    assert [run.folder for run in runs] == [whole]
    assert left_out == [(folder, "a class is named mean, as the mean over classes is; rename it")]


def test_a_test_that_names_its_own_folder_as_its_training_ends(make_test):
    folder = make_test("a", 1, "vv")
    prompts = folder / "prompts" / "epoch_1.safetensors"
    prompts.parent.mkdir()
    prompts.write_text("a")
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace("/t_a/", "/a/"))
    ((run,), _) = find_runs([folder])
    assert run.training.folder == folder


@pytest.mark.parametrize("name", ["~nobody/x/y.safetensors", "x" * 5000, "a\0b"])
def test_an_odd_checkpoint_is_no_training(make_test, name):
    folder = make_test("a", 1, "vv")
    config = yaml.safe_load((folder / "config.yaml").read_text())
    (folder / "config.yaml").write_text(yaml.safe_dump({**config, "checkpoint": name}))
    try:
        ((run,), _) = find_runs([folder])
    except UsageError:
        return
    assert run.training is None


@pytest.mark.parametrize(
    "text",
    [
        "{half",
        "[]",
        '{"alpha": {"pro": {"bolt": []}}}',
        '{"alpha": {"pro": {"bolt": {"x": [0], "y": [1], "x_name": "a"}}}}',
        '{"alpha": {"pro": {"bolt": {"x": [0], "y": [], "x_name": "a", "y_name": "b"}}}}',
        '{"alpha": {"pro": {"bolt": {"x": [NaN], "y": [0], "x_name": "a", "y_name": "b"}}}}',
        '{"alpha": {"pro": {"bolt": {"x": "a", "y": "b", "x_name": "a", "y_name": "b"}}}}',
    ],
)
def test_a_damaged_file_of_curves_is_named_and_left_out(make_run, caplog, text):
    (make_run("a", findings=False) / "curves.json").write_text(text)
    ((run,), _) = find_runs([make_run("b").parent / "a"])
    assert run.curves == run.curves == {}
    assert caplog.text.count("curves.json is damaged") == 1
