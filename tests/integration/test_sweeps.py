"""Multiruns, typed: launchers that agree, jobs that fail or are killed, jobs that are done."""

import json
import os
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
import yaml

from crane.cli.sweeps import sweep_frame
from crane.runs import read_store
from crane.runs.record import SKIPPED, read_outcomes
from crane.runs.store import FAILED, FINISHED

pytestmark = pytest.mark.long

LAUNCHERS = {
    "basic": [],
    "joblib": ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"],
    "submitit": ["hydra/launcher=submitit_local"],
    # Otherwise what jobs print arrives at any time, in the middle of the tables too.
    "ray": ["hydra/launcher=ray", "+hydra.launcher.ray.init.log_to_driver=false"],
}
DATA = "_target_: crane.data.index_folder, split: test, mask_threshold: 0"


@pytest.fixture
def overrides(tiny, use, tmp_path):
    """Of jobs whose source is a folder for each of them: a job whose folder is missing fails."""
    root = f"{tmp_path}/sources/${{attention.num_blocks}}_${{prompt.num_words}}_${{seed}}"
    source = [f"+source.alpha={{{DATA}, name: alpha, root: '{root}'}}", "dataset@source=[]"]
    return [*tiny, *source, *use("targets", "gamma")]


@pytest.fixture
def provide(data_sets, tmp_path):
    """Make the source of a job: the same images in each folder."""

    def make(num_blocks, num_words, seed):
        folder = tmp_path / "sources" / f"{num_blocks}_{num_words}_{seed}"
        folder.parent.mkdir(exist_ok=True)
        folder.symlink_to(data_sets / "alpha")

    return make


@pytest.fixture
def sweep(crane, overrides, tmp_path, monkeypatch):
    """Type `crane train -m`; gives what was printed, how the jobs ended, and their numbers."""

    def run(*more, folder, store):
        places = [f"hydra.sweep.dir={tmp_path / folder}", f"results_store={tmp_path / store}"]
        typed = crane("train", "-m", *overrides, *more, *places)
        outcomes = list(read_outcomes(tmp_path / folder).values())
        return typed, outcomes, pd.DataFrame(sweep_frame(tmp_path / store, outcomes))

    yield run
    loky = sys.modules.get("joblib.externals.loky")
    if loky is not None:  # its processes would wait for more work
        loky.get_reusable_executor().shutdown(kill_workers=True)


def ends(outcomes):
    return [(o.name, o.seed, o.status) for o in outcomes]


def summary(typed):
    """What is printed after the jobs: basic jobs print too, in this process."""
    lines = typed.out.splitlines()
    start = next(n for n, line in enumerate(lines) if " jobs: " in line)
    return lines[start:]


def check_launchers(sweep, axes, failing):
    """The launchers agree, on the jobs that end well and on the one that does not."""
    number, label = failing
    found = {}
    for name, launcher in LAUNCHERS.items():
        typed, outcomes, numbers = sweep(*axes, *launcher, folder=f"by_{name}", store=f"of_{name}")
        assert typed.code == 1, typed.err
        (failed,) = (o for o in outcomes if o.status == FAILED)
        assert (failed.number, failed.name) == (number, label)
        assert "data set alpha: " in failed.error
        assert any(f"failed job {number}, {label}, seed" in line for line in summary(typed))
        assert [o.number for o in outcomes] == list(range(len(outcomes)))
        found[name] = (ends(outcomes), numbers, summary(typed))
    basic = found.pop("basic")
    assert len(basic[1]["metric"].unique()) > 6
    for other_ends, other_numbers, other_summary in found.values():
        assert other_ends == basic[0]
        same = [numbers.drop(columns="run_id") for numbers in (other_numbers, basic[1])]
        pd.testing.assert_frame_equal(*same, check_exact=True)
        hide = [
            [line for line in lines if not line.startswith("failed")]
            for lines in (other_summary, basic[2])
        ]
        assert hide[0] == hide[1]
    return basic


@pytest.mark.timeout(1200)  # fourteen processes start; a busy machine takes long over that
def test_launchers_give_identical_tables_and_what_is_done_is_not_repeated(sweep, provide, tmp_path):
    axes = ["attention=clip,vv", "seed=1,2"]
    for num_blocks, seed in ((0, 1), (6, 1), (6, 2)):
        provide(num_blocks, 12, seed)
    outcomes, _, printed = check_launchers(sweep, axes, failing=(1, "attention=clip"))
    assert printed[0] == "4 jobs: 3 finished, 1 failed"
    assert [status for *_, status in outcomes] == [FINISHED, FAILED, FINISHED, FINISHED]
    text = "\n".join(printed)
    assert "Mean ± standard deviation over seeds, %" in text
    assert "Difference from attention=clip, paired by seed, points" in text

    # The other axis first: the same settings in another place. What failed is done now.
    provide(0, 12, 2)
    typed, outcomes, numbers = sweep(*reversed(axes), folder="again", store="of_joblib")
    assert typed.code == 0, typed.err
    assert sorted(ends(outcomes)) == [
        ("attention=clip", 1, SKIPPED),
        ("attention=clip", 2, FINISHED),
        ("attention=vv", 1, SKIPPED),
        ("attention=vv", 2, SKIPPED),
    ]
    assert summary(typed)[0] == "4 jobs: 1 finished, 3 skipped"
    assert (numbers.groupby(["setting", "metric"])["seed"].nunique() == 2).all()
    stored = read_store(tmp_path / "of_joblib").drop_duplicates("run_id")
    assert sorted(stored["status"]) == [FAILED, *[FINISHED] * 4]
    assert stored[stored["status"] == FAILED]["error"].item().startswith("data set alpha: ")


@pytest.mark.slow
def test_launchers_give_identical_tables_for_two_by_three_settings_of_two_seeds(sweep, provide):
    axes = ["attention=clip,vv", "prompt.num_words=4,8,12", "seed=1,2"]
    for num_blocks in (0, 6):
        for num_words in (4, 8, 12):
            for seed in (1, 2):
                if (num_blocks, num_words, seed) != (6, 4, 2):
                    provide(num_blocks, num_words, seed)
    label = "attention=vv,prompt.num_words=4"
    outcomes, numbers, printed = check_launchers(sweep, axes, failing=(7, label))
    assert printed[0] == "12 jobs: 11 finished, 1 failed"
    assert len({name for name, *_ in outcomes}) == 6
    assert (numbers.groupby(["setting", "metric"])["seed"].nunique() == 2).sum() == 5 * numbers[
        "metric"
    ].nunique()


def test_changed_data_are_not_taken_for_done(crane, tiny, use, last_of, tmp_path, data_sets):
    copy = tmp_path / "gamma"
    subprocess.run(["cp", "-r", data_sets / "gamma", copy], check=True)
    data = [*use("source", "alpha"), *use("targets", "gamma", folder=tmp_path)]
    store, sweep_dir = f"results_store={tmp_path / 'store'}", f"hydra.sweep.dir={tmp_path / 's'}"

    def states(*more):
        typed = crane("train", "-m", *last_of(*tiny, *data, "seed=1", store, sweep_dir, *more))
        assert typed.code == 0, typed.err
        return [o.status for o in read_outcomes(tmp_path / "s").values()]

    assert states() == [FINISHED]
    assert states() == [SKIPPED]
    assert states("overlay.tile=61", "datasets_dir=/elsewhere", "weights_dir=w") == [SKIPPED]
    assert states("image_size=28") == [FINISHED]
    next(copy.glob("tile/test/good/*.png")).unlink()
    assert states() == [FINISHED]


def test_a_tested_checkpoint_is_told_by_what_it_holds(crane, use, train, tmp_path):
    run = train("test=false")
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(run.prompts.read_bytes())
    common = ["trainer=cpu", "data.num_workers=0", *use("targets", "gamma")]
    places = [f"results_store={tmp_path / 'store'}", f"hydra.sweep.dir={tmp_path / 's'}"]

    def states(checkpoint):
        axis = "scoring=mean_of_softmax,softmax_of_mean"
        typed = crane("test", "-m", *common, f"checkpoint={checkpoint}", axis, *places)
        assert typed.code == 0, typed.err
        return [(o.name, o.status) for o in read_outcomes(tmp_path / "s").values()]

    names = ["scoring=mean_of_softmax", "scoring=softmax_of_mean"]
    assert states(run.prompts) == [(name, FINISHED) for name in names]
    assert states(copy) == [(name, SKIPPED) for name in names]
    copy.write_bytes(train("test=false", "seed=5", name="other").prompts.read_bytes())
    assert states(copy) == [(name, FINISHED) for name in names]
    stored = read_store(tmp_path / "store").drop_duplicates("run_id")
    assert list(stored["command"]) == ["test"] * 4
    assert list(stored["sources"]) == ["alpha"] * 4
    assert list(stored["scoring"]) == ["mean_of_softmax", "softmax_of_mean"] * 2
    assert stored["attention"].isna().all()  # the checkpoint brought it, without its name


def test_a_killed_sweep_goes_on_where_it_was(sweep, overrides, provide, tmp_path):
    seeds = range(1, 5)
    for seed in seeds:
        provide(6, 12, seed)
    axis = "seed=" + ",".join(map(str, seeds))
    places = [f"hydra.sweep.dir={tmp_path / 'killed'}", f"results_store={tmp_path / 'store'}"]
    process = subprocess.Popen(
        [sys.executable, "-m", "crane", "train", "-m", *overrides, axis, *places],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not list((tmp_path / "store").glob("*.parquet")):
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = read_store(tmp_path / "store")["run_id"].nunique()
    assert done < len(seeds), "it ended before it was killed"

    typed, outcomes, numbers = sweep(axis, folder="again", store="store")
    assert typed.code == 0, typed.err
    states = [o.status for o in outcomes]
    assert states == [SKIPPED] * done + [FINISHED] * (len(seeds) - done)
    assert set(numbers["seed"]) == set(seeds)


def test_optuna_is_told_what_jobs_measured_and_goes_on_when_one_fails(sweep, provide, tmp_path):
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="the extra `optuna`")
    for num_words in (4, 12):
        provide(6, num_words, 1)
    optuna = ["hydra/sweeper=optuna", "hydra/sweeper/sampler=grid", "hydra.sweeper.n_jobs=1"]
    axes = ["prompt.num_words=4,8,12", "seed=1", "objective=aupro"]
    for folder, expected in (("first", FINISHED), ("again", SKIPPED)):
        typed, outcomes, numbers = sweep(*optuna, *axes, folder=folder, store="store")
        assert typed.code == 1, typed.err
        status = {o.name: o.status for o in outcomes}
        assert status == {
            "prompt.num_words=4": expected,
            "prompt.num_words=8": FAILED,
            "prompt.num_words=12": expected,
        }
        best = yaml.safe_load((tmp_path / folder / "optimization_results.yaml").read_text())
        measured = numbers[numbers["metric"] == "aupro"].set_index("setting")["value"]
        assert measured.nunique() == 2
        assert best["best_value"] == measured.max()
        assert measured.idxmax() == f"prompt.num_words={best['best_params']['prompt.num_words']}"


def test_optuna_without_something_to_optimise_is_refused(crane, tiny):
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="the extra `optuna`")
    typed = crane("train", "-m", *tiny, "hydra/sweeper=optuna", "seed=1,2", "objective=nonsense")
    assert typed.code == 2
    assert "objective: unknown metric 'nonsense'; choose one of image_auroc" in typed.err
    assert "Traceback" not in typed.err


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", "submitit"])
def test_a_job_that_is_killed_is_named(sweep, provide, monkeypatch, launcher):
    """The kernel does that to jobs that take too much memory."""
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    provide(6, 12, 1)
    deadly = "+source.killer={_target_: signal.raise_signal, _args_: [9]}"
    typed, outcomes, _ = sweep(
        "seed=1", deadly, *LAUNCHERS[launcher], folder=launcher, store="store"
    )
    assert typed.code == 1
    assert "1 job: 1 unfinished" in typed.out
    assert "unfinished job 0, all, seed 1: killed" in typed.out
    assert "run the same command again to finish the rest" in typed.err
    assert [o.run_id for o in outcomes] == [None]


@pytest.mark.slow
def test_two_processes_that_fail_do_not_end_the_sweep(overrides, provide, tmp_path):
    """Lightning would kill the sweep some seconds after the second process has ended."""
    provide(6, 12, 111)
    two = ["trainer.devices=2", "trainer.strategy=ddp", "data.validation_fraction=0.34"]
    folder = tmp_path / "sweep"
    axis = ["monitor=val/nonsense,val/aupro", f"hydra.sweep.dir={folder}", "results_store=store"]
    done = subprocess.run(
        [sys.executable, "-m", "crane", "train", "-m", *overrides, *two, *axis],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 1, done.stderr[-3000:]
    assert [o.status for o in read_outcomes(folder).values()] == [FAILED, FINISHED]
    assert "2 jobs: 1 finished, 1 failed" in done.stdout


@pytest.mark.parametrize("variable", ["WORLD_SIZE", "SLURM_STEP_NUM_TASKS"])
def test_a_multirun_in_each_of_several_processes_is_refused(crane, tiny, monkeypatch, variable):
    monkeypatch.setenv(variable, "2")
    typed = crane("train", "-m", *tiny, "seed=1,2")
    assert typed.code == 2
    assert "torchrun or srun started 2" in typed.err


def torchrun(*arguments, cwd):
    start = "torch.distributed.run --standalone --nproc-per-node 2 -m crane"
    return subprocess.run(
        [sys.executable, "-m", *start.split(), *map(str, arguments)],
        cwd=cwd,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_torchrun_gives_the_results_of_one_process(crane, use, train, results_of, tmp_path):
    run = train("test=false")
    common = [
        f"checkpoint={run.prompts}",
        "trainer=cpu",
        "data.num_workers=0",
        *use("targets", "gamma"),
    ]
    one, two = tmp_path / "one", tmp_path / "two"
    outcome = crane("test", *common, f"run_dir={one}")
    assert outcome.code == 0, outcome.err
    strategy = ["trainer.devices=2", "trainer.strategy=ddp", f"hydra.run.dir={two}"]
    done = torchrun("test", *common, *strategy, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("the rest") == 1, "one process talks"
    assert json.loads((two / "record.json").read_text())["device"] == "1 x 2 cpu"
    first, second = results_of(one)["gamma"], results_of(two)["gamma"]
    assert second["classes"]["tile"]["num_normal"] == 3  # of 7 images, none counts twice
    for name, value in first["means"].items():
        assert second["means"][name] == (value if value is None else pytest.approx(value, abs=1e-5))
