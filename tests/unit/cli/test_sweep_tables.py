"""The end of a multirun: settings side by side, against a baseline, and its exit code."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from rich.console import Console

from crane.cli import sweeps
from crane.cli.sweeps import (
    find_baseline,
    paired_table,
    spread_table,
    summed_up,
    sweep_frame,
)
from crane.errors import UsageError
from crane.runs import MEAN, DatasetResult, Measurement, StoredRun, store_run
from crane.runs.record import JOB_FILE, SKIPPED, STARTED, JobOutcome, read_outcomes
from crane.runs.store import FAILED, FINISHED

VV, CLIP = ("attention=vv",), ("attention=clip",)
METRICS = ("image_auroc", "aupro")


def measured(rows):
    return [
        Measurement(name, seed, dataset, MEAN, metric, value, run_id=f"{name}-{seed}")
        for name, seed, dataset, metric, value in rows
    ]


FRAME = measured(
    [
        ("attention=vv", 1, "visa", "image_auroc", 0.80),
        ("attention=vv", 2, "visa", "image_auroc", 0.90),
        ("attention=vv", 1, "btad", "image_auroc", 0.50),
        ("attention=clip", 1, "visa", "image_auroc", 0.85),
        ("attention=clip", 2, "visa", "image_auroc", 0.97),
        ("attention=clip", 3, "visa", "image_auroc", 0.10),  # its partner failed
        ("attention=clip", 1, "btad", "image_auroc", 0.25),
        ("attention=vv", 1, "visa", "aupro", math.nan),
        ("attention=vv", 2, "visa", "aupro", math.nan),
        ("attention=clip", 1, "visa", "aupro", 0.4),
    ]
)


def cells(table):
    """The body of a table, row by row, as it is printed."""
    columns = [[str(cell) for cell in column.cells] for column in table.columns]
    return [list(row) for row in zip(*columns, strict=True)]


def test_mean_and_sample_standard_deviation_over_seeds():
    assert cells(spread_table(FRAME, METRICS)) == [
        ["[bold]visa[/bold]", "", "", ""],
        [" attention=vv", "2", "85.0 ±7.1", "-"],
        [" attention=clip", "3", "64.0 ±47.1", "40.0"],
        ["[bold]btad[/bold]", "", "", ""],
        [" attention=vv", "1", "50.0", "-"],
        [" attention=clip", "1", "25.0", "-"],
    ]


def test_differences_are_paired_by_seed():
    """Of 85.0 ±7.1 and 91.0 ±8.5 the difference is 6.0 ±1.4: what the seeds share cancels."""
    assert cells(paired_table(FRAME, METRICS, "attention=vv")) == [
        ["[bold]visa[/bold]", "", "", ""],
        [" attention=clip", "2", "+6.0 ±1.4", "-"],
        ["[bold]btad[/bold]", "", "", ""],
        [" attention=clip", "1", "-25.0", "-"],
    ]


def test_a_repeated_job_counts_once():
    once = cells(paired_table(FRAME, METRICS, "attention=vv"))
    assert cells(paired_table(FRAME * 2, METRICS, "attention=vv")) == once
    assert cells(spread_table(FRAME * 2, METRICS)) == cells(spread_table(FRAME, METRICS))


def test_tables_fit_80_columns_whole():
    """Folded where need be: no digit and no letter is cut off."""
    metrics = ["image_auroc", "image_ap", "image_f1max", "pixel_auroc", "aupro", "pixel_f1max"]
    name = "source=[a,b],+source.c.root=/a/long/place,attention=qq+kk+vv"
    values = [(name, s, "embedded_photos", m, 0.123 * s) for s in (1, 8) for m in metrics]
    console = Console(width=80)
    with console.capture() as printed:
        console.print(spread_table(measured(values), metrics))
    lines = [line.strip() for line in printed.get().splitlines()]
    assert "…" not in printed.get()
    assert printed.get().count("55.4") == printed.get().count("±60.9") == 6
    assert "embedded_photos" in lines
    assert "attention=qq+kk+vv" in lines
    assert next(line for line in lines if "source=[a,b]" in line).split()[0] == "source=[a,b]"


def outcome(number, varies, seed, status=FINISHED, **facts):
    return JobOutcome(number, varies, seed, status, **facts)


def test_the_baseline_is_the_first_setting_or_the_one_named():
    jobs = [
        outcome(0, (*VV, "prompt=none"), 1, FAILED),
        outcome(1, (*VV, "prompt=pad_prefix"), 1),
        outcome(2, (*CLIP, "prompt=none"), 1),
    ]
    frame = measured([(job.name, 1, "visa", "aupro", 0.5) for job in jobs[1:]])
    first, second = jobs[1].name, jobs[2].name
    assert find_baseline(None, jobs, frame) == first
    assert find_baseline("attention=clip", jobs, frame) == second
    assert find_baseline("attention=vv", jobs, frame) == first  # the other failed
    assert find_baseline(second, jobs, frame) == second
    with pytest.raises(
        UsageError,
        match=r"^baseline: no setting 'attention=qq' .* choose attention=vv,prompt=pad_prefix or ",
    ):
        find_baseline("attention=qq", jobs, frame)


@pytest.fixture
def sweep(tmp_path):
    """A multirun's folder and store with two settings of two seeds each."""
    store, jobs = tmp_path / "store", []
    for number, (varies, seed, value) in enumerate(
        [(VV, 1, 0.8), (VV, 2, 0.9), (CLIP, 1, 0.7), (CLIP, 2, 0.6)]
    ):
        result = DatasetResult(
            dataset="visa",
            class_names=("pcb",),
            values={"aupro": (value,)},
            means={"aupro": value},
            num_normal=(1,),
            num_anomalous=(1,),
        )
        run = StoredRun("s", "train", FINISHED, "runs/0", seed, [], ["mvtec"], {})
        store_run(store, run, [result])
        jobs.append(outcome(number, varies, seed, run_id=run.run_id))
    config = {
        "hydra": {
            "sweep": {"dir": str(tmp_path / "sweep"), "subdir": "${hydra.job.num}"},
            "sweeper": {"_target_": "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"},
        },
        "results_store": str(store),
        "table_columns": ["image_auroc", "aupro"],
        "baseline": None,
    }
    return OmegaConf.create(config), jobs


def write_jobs(config, jobs):
    for job in jobs:
        path = Path(config.hydra.sweep.dir) / f"job{job.number}" / JOB_FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({**vars(job), "varies": list(job.varies)}))


def ended(config):
    """The exit code of a multirun."""
    try:
        sweeps.end(config)
    except SystemExit as leaving:
        return leaving.code
    return 0


def test_a_sweep_that_went_well(sweep, capsys):
    config, jobs = sweep
    jobs[1] = replace(jobs[1], status=SKIPPED)
    write_jobs(config, jobs)
    assert list(read_outcomes(Path(config.hydra.sweep.dir)).values()) == jobs
    assert ended(config) == 0
    printed = capsys.readouterr().out
    assert "4 jobs: 3 finished, 1 skipped" in printed
    assert "85.0 ±7.1" in printed  # the skipped one counts
    assert "-20.0 ±14.1" in printed
    assert "image AUROC" not in printed  # nobody measured it


@pytest.mark.parametrize(
    ("status", "error", "shown"),
    [
        (FAILED, "out of memory", "failed job 3, attention=clip, seed 2: out of memory"),
        (STARTED, None, "unfinished job 3, attention=clip, seed 2: killed, or still running"),
    ],
)
def test_a_job_that_did_not_end_well_is_named_and_the_others_counted(
    sweep, capsys, status, error, shown
):
    config, jobs = sweep
    write_jobs(config, [*jobs[:3], replace(jobs[3], status=status, run_id=None, error=error)])
    assert ended(config) == 1
    printed = capsys.readouterr().out
    assert shown in printed
    assert "-10.0" in printed  # of the one pair left


def test_without_a_store_there_are_no_tables(sweep, capsys):
    config, jobs = sweep
    config.results_store = None
    write_jobs(config, [replace(job, run_id=None) for job in jobs])
    assert ended(config) == 0
    assert capsys.readouterr().out == "4 jobs: 4 finished\n"


def test_an_unknown_baseline_is_a_mistake_said_after_the_first_table(sweep, capsys):
    config, jobs = sweep
    config.baseline = "attention=qq"
    write_jobs(config, jobs)
    assert ended(config) == 2
    printed = capsys.readouterr()
    assert "85.0 ±7.1" in printed.out
    assert "choose attention=vv or attention=clip" in printed.err


def test_a_damaged_job_file_is_named_and_no_success(sweep, capsys):
    config, jobs = sweep
    write_jobs(config, jobs)
    (Path(config.hydra.sweep.dir) / "job0" / JOB_FILE).write_text("{")
    assert ended(config) == 1
    printed = " ".join(capsys.readouterr().out.split())
    assert "4 jobs: 3 finished, 1 unfinished" in printed
    assert "job0/job.json is damaged" in printed


def test_an_error_in_the_summary_is_no_success(sweep, capsys, monkeypatch):
    """Hydra turns what its callbacks raise into warnings."""
    config, jobs = sweep
    write_jobs(config, jobs)
    monkeypatch.setattr(sweeps, "read_measurements", lambda *_: 1 / 0)
    assert ended(config) == 1
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_an_earlier_sweep_in_the_same_folder_is_forgotten(sweep, capsys):
    config, jobs = sweep
    write_jobs(config, jobs)
    sweeps.start(config)
    write_jobs(config, jobs[:1])
    assert ended(config) == 0
    assert "1 job: 1 finished" in capsys.readouterr().out


def test_files_that_are_not_ours_stay(sweep):
    """A multirun in a folder of the user's own, and one in the folder of all multiruns."""
    config, jobs = sweep
    folder = Path(config.hydra.sweep.dir)
    others = [folder / "mine" / JOB_FILE, folder / "an_older_sweep" / "job0" / JOB_FILE]
    ours = json.dumps({**vars(jobs[0]), "varies": []})
    for path, content in zip(others, ['{"title": "cook"}', ours], strict=True):
        path.parent.mkdir(parents=True)
        path.write_text(content)
    sweeps.start(config)
    write_jobs(config, jobs[:2])
    assert list(read_outcomes(folder).values()) == jobs[:2]
    assert [path.is_file() for path in others] == [True, True]


def test_two_multiruns_in_one_folder_are_refused(sweep, capsys):
    config, _ = sweep
    sweeps.start(config)
    with pytest.raises(SystemExit) as leaving:
        sweeps.start(config)
    assert leaving.value.code == 2
    assert "hydra.sweep.dir" in capsys.readouterr().err
    sweeps.end(config)
    sweeps.start(config)


def test_commands_that_measure_nothing_have_no_summary(sweep, capsys):
    config, _ = sweep
    sweeps.start(config)
    assert ended(config) == 0
    assert capsys.readouterr().out == ""


def test_a_sweep_that_ends_early_is_summed_up_too(sweep, capsys):
    config, jobs = sweep
    config.baseline = "attention=clip"  # not measured yet

    @summed_up()
    def interrupted():
        sweeps.start(config)
        write_jobs(config, [*jobs[:2], replace(jobs[2], status=STARTED, run_id=None)])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    printed = capsys.readouterr()
    assert "3 jobs: 2 finished, 1 unfinished" in printed.out
    assert "run the same command again to finish the rest" in printed.err


def test_a_sweep_that_ended_is_summed_up_once(sweep, capsys):
    config, jobs = sweep

    @summed_up()
    def ending():
        sweeps.start(config)
        write_jobs(config, [*jobs[:3], replace(jobs[3], status=FAILED, run_id=None)])
        sweeps.end(config)

    with pytest.raises(SystemExit):
        ending()
    printed = capsys.readouterr()
    assert printed.out.count("4 jobs:") == 1
    assert "interrupted" not in printed.err


def test_the_numbers_are_those_of_the_jobs_in_their_order(sweep):
    config, jobs = sweep
    failed = replace(jobs[0], status=FAILED)
    frame = sweep_frame(Path(config.results_store), [failed, jobs[2], jobs[3]])
    assert [(row.setting, row.seed, row.value) for row in frame] == [
        ("attention=clip", 1, 0.7),
        ("attention=clip", 2, 0.6),
    ]
