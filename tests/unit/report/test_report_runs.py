import pytest

from crane.errors import UsageError
from crane.report import find_runs


def test_runs_come_in_the_order_in_which_they_began(make_run, tmp_path):
    make_run("a", started="2026-01-02T00:00:00+00:00", findings=False)
    make_run("b", started="2026-01-01T00:00:00+00:00", findings=False)
    runs, unfinished = find_runs([tmp_path / "runs"])
    assert [run.folder.name for run in runs] == ["b", "a"]
    assert unfinished == []


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
    runs, unfinished = find_runs([tmp_path / "runs"])
    assert [run.folder.name for run in runs] == ["whole"]
    assert unfinished == [cut]


def test_results_alone_are_a_run(make_run):
    folder = make_run("old", findings=False)
    for name in ("record.json", "config.yaml"):
        (folder / name).unlink()
    (run,), _ = find_runs([folder])
    assert run.seed is None
    assert run.config == run.record == {}


def test_a_path_that_is_no_folder_and_one_without_runs_are_refused(tmp_path):
    with pytest.raises(UsageError, match=r"a folder with runs.*nowhere.*paths"):
        find_runs([tmp_path / "nowhere"])
    with pytest.raises(UsageError, match=r"at least one results\.json.*paths"):
        find_runs([tmp_path])


@pytest.mark.parametrize(
    ("name", "text"),
    [("results.json", "{}"), ("record.json", "{half"), ("config.yaml", "- a\n- list: ]")],
)
def test_a_broken_file_is_named(make_run, name, text):
    folder = make_run("a", findings=False)
    (folder / name).write_text(text)
    with pytest.raises(UsageError, match=name):
        find_runs([folder])
