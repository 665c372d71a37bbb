import re
import subprocess
import sys

import pytest
from omegaconf import OmegaConf

from crane import __version__
from crane.cli.help import OF_CHECKPOINTS, OF_THE_CHECKPOINT
from crane.cli.main import COMMANDS
from crane.cli.validation import groups
from crane.config import compose, conf_dir


def refused(outcome):
    """A mistake ends in one line on stderr and exit code 2."""
    assert outcome.code == 2
    assert outcome.err.startswith("crane: ")
    assert outcome.err.count("\n") == 1
    assert "Traceback" not in outcome.err + outcome.out
    return outcome.err


def test_a_misspelt_command_is_refused_with_the_commands(crane):
    message = refused(crane("trian"))
    assert "unknown command 'trian'; did you mean train? choose one of train, test" in message


def test_version(crane):
    outcome = crane("--version")
    assert outcome.code == 0
    assert outcome.out == f"crane {__version__}\n"


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        (["train", "attention=qqq"], "did you mean qq?"),
        (["train", "-m", "attention=vv,qqq"], "did you mean qq?"),
        (["train", "source=[mvtc]"], "did you mean mvtec?"),
        (["train", "targets=[visa,mvtc]"], "did you mean mvtec?"),
        (["test", "data.batchsize=3"], "data.batch_size"),
        (["predict", "checkpont=x"], "checkpoint"),
        (["predict", "threshold"], "KEY=VALUE"),
    ],
)
def test_a_misspelt_override_is_refused_with_the_alternatives(crane, typed, shown):
    assert shown in refused(crane(*typed))


def test_values_that_must_be_given_are_asked_for(crane):
    assert "checkpoint is required: crane test checkpoint=…" in refused(crane("test"))
    assert "input is required: crane predict input=…" in refused(crane("predict"))
    assert "targets.folder.root=…" in refused(crane("train", "targets=[folder]"))


def test_a_mistake_inside_a_constructor_is_the_users_mistake_all_the_same(crane, tiny):
    message = refused(crane("train", *tiny, "source=[dtd]", "datasets_dir=nowhere"))
    assert "dtd" in message
    assert "datasets_dir, source.dtd.root or targets.dtd.root" in message


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("data.portion=2.0", "data.portion"),
        ("epoch=2", "epoch"),
        ("trainer=gpu", "trainer"),
        ("table_columns=aupro", "table_columns"),
        ("table_columns=[aupro,auprro]", "table_columns"),
        ("results_store=README.md", "results_store"),
    ],
)
def test_values_that_do_not_fit_name_their_key(crane, tiny, use, override, key, tmp_path):
    (tmp_path / "README.md").touch()
    data = [*use("source", "alpha"), *use("targets", "gamma")]
    assert key in refused(crane("train", *tiny, *data, override))


def test_jobs_of_a_multirun_do_not_share_a_folder(crane, tiny):
    message = refused(crane("train", "-m", *tiny, "attention=vv,qq", "run_dir=one"))
    assert "hydra.sweep.dir" in message


@pytest.mark.parametrize("more", [(), ("-m", "seed=1,2")])
def test_where_no_folder_for_runs_can_be_made_is_said(crane, tiny, tmp_path, more):
    (tmp_path / "runs").touch()
    message = refused(crane("train", *more, *tiny, "source=[embedded_parts]", "targets=[]"))
    assert "cannot write to runs" in message


def test_a_workspace_wants_lists_of_things_there_are(crane):
    here = ["workspace", "entity=team"]
    assert "datasets must be a list; type datasets=[visa]" in refused(crane(*here, "datasets=visa"))
    assert "panels: unknown metric 'auprro'; did you mean aupro?" in refused(
        crane(*here, "datasets=[visa]", "panels=[auprro]")
    )


@pytest.mark.long
def test_training_needs_a_source_and_testing_a_target(crane, tiny, use, tmp_path):
    assert "source" in refused(crane("train", *tiny, "source=[]", *use("targets", "gamma")))
    crane("train", *tiny, *use("source", "alpha"), "targets=[]", f"run_dir={tmp_path}")
    checkpoint = tmp_path / "prompts" / "epoch_1.safetensors"
    refusal = refused(crane("test", f"checkpoint={checkpoint}", "targets=[]"))
    assert "targets" in refusal


def test_an_unexpected_error_is_not_dressed_up_as_a_mistake(crane, tiny, monkeypatch):
    def broken(config):
        raise ZeroDivisionError("a fault of crane")

    monkeypatch.setattr("crane.training.train", broken)
    with pytest.raises(ZeroDivisionError):
        crane("train", *tiny, "source=[embedded_parts]", "targets=[]")


def test_short_names_reach_the_configuration(crane):
    outcome = crane("train", "source=[mpdd]", "targets=[btad,visa]", "--cfg", "job")
    config = OmegaConf.create(outcome.out)
    assert outcome.code == 0
    assert (list(config.source), list(config.targets)) == (["mpdd"], ["btad", "visa"])


@pytest.mark.long
def test_multirun_may_stand_anywhere(crane):
    typed = ("train", "source=[mvtec]", "-m", "seed=1,2", "datasets_dir=nowhere")
    outcome = crane(*typed)
    assert outcome.code == 1
    for failed in ("job 0, all, seed 1", "job 1, all, seed 2"):
        assert f"failed {failed}: " in outcome.out
    assert outcome.out.count("source.mvtec.root") >= 2


def test_paths_need_no_quotes_against_hydra(crane, monkeypatch):
    seen = []
    monkeypatch.setattr("crane.cli.on_disk.weights", lambda config: seen.append(config.weights_dir))
    for path in ("~/w", "a b (2)/ü…#&;!", "epoch=5.ckpt", "it's", "C:\\w", "'quoted already'"):
        assert crane("weights", f"weights_dir={path}").code == 0
        assert seen.pop() == path.strip("'")


def test_run_dir_may_begin_with_a_tilde(crane, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    seen = []
    monkeypatch.setattr("crane.cli.on_disk.weights", lambda config: seen.append(config.run_dir))
    assert crane("weights", "run_dir=~/here").code == 0
    assert seen == [str(tmp_path / "home" / "here")]


def test_processes_that_lightning_starts_do_this_one_job(crane, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr("crane.cli.on_disk.weights", lambda config: seen.append(list(sys.argv)))
    sweep = f"hydra.sweep.dir={tmp_path}/a b"
    assert crane("weights", "-m", "seed=1,2", "guide=tiny", sweep).code == 0
    jobs = [["seed=1", "guide=tiny"], ["seed=2", "guide=tiny"]]
    assert seen == [
        ["crane", "weights", *job, f"run_dir='{tmp_path}/a b/{number}_{job[0]}'"]
        for number, job in enumerate(jobs)
    ]


def test_overview_names_every_command(crane):
    for typed in ((), ("--help",), ("-h",)):
        outcome = crane(*typed)
        assert outcome.code == 0
        for command in COMMANDS:
            assert f"crane {command}" in outcome.out


def used_groups(command):
    used = set()
    for entry in OmegaConf.load(conf_dir() / f"{command}.yaml").defaults:
        if OmegaConf.is_dict(entry):
            used |= {str(key).removeprefix("override ").partition("@")[0] for key in entry}
        elif (conf_dir() / f"{entry}.yaml").is_file():
            used |= used_groups(entry)
    return used


@pytest.mark.parametrize("command", COMMANDS)
def test_help_prints_every_group_the_command_has_and_every_option(crane, command):
    outcome = crane(command, "--help")
    assert (outcome.code, outcome.err) == (0, "")
    lines = outcome.out.splitlines()
    used = used_groups(command)
    if command in OF_CHECKPOINTS:
        used -= OF_THE_CHECKPOINT
        assert "as in the checkpoint" in outcome.out
    for group, names in groups().items():
        heads = [n for n, line in enumerate(lines) if re.match(rf"  {group}( |$)", line)]
        assert bool(heads) == (group in used), f"{group} in the help of {command}"
        if group not in used:
            continue
        below = lines[heads[0] + 1 :]
        listed = [line.split(maxsplit=1) for line in below[: below.index("")]]
        rows = {words[0]: words[1] for words in listed if len(words) == 2}
        for name in names:
            assert rows.get(name), f"{group}={name} with its comment in the help of {command}"
    for key in compose(command, []):
        if key in ("seed", "datasets_dir", "weights_dir", "run_dir"):
            assert any(line.startswith(f"  {key}: ") for line in lines), key
    assert "Examples" in outcome.out


def test_help_lists_nested_keys_with_their_comments(crane):
    listed = crane("train", "--help").out
    for key in (
        "data.batch_size",
        "metrics.pixels.scale.octave_bits",
        "trainer.limit_test_batches",
    ):
        assert re.search(rf"^    {re.escape(key)}: \S+ +# \w", listed, re.MULTILINE), key
    assert "_target_" not in listed.partition("Groups")[2]


def test_python_dash_m_crane():
    done = subprocess.run(
        [sys.executable, "-m", "crane", "--help"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0
    assert "zero-shot anomaly detection" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize("swept", ["monitor=val/mean,nothing", "objective=aupro,nothing"])
def test_a_sweep_over_a_metric_that_nothing_measures_starts_no_job(crane, tmp_path, swept):
    said = refused(crane("train", "-m", swept, "source=[embedded_parts]", "targets=[]"))
    assert "'nothing'" in said
    assert not list(tmp_path.iterdir())
