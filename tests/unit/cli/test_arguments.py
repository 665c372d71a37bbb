"""What is typed after a command, and what Hydra is given."""

import pytest
from omegaconf import OmegaConf

from crane.cli.arguments import JOB_NAME_EXCLUDES, NEVER_IN_NAMES, Arguments
from crane.cli.launch import MAX_LENGTH, job_folder
from crane.config import conf_dir
from crane.errors import UsageError


def for_hydra(command, *typed):
    return Arguments(command, typed).for_hydra()


@pytest.mark.parametrize(
    ("typed", "wanted"),
    [
        (["source=[mvtec]"], ["dataset@source=[mvtec]"]),
        (["source.mvtec.root=/data"], ["source.mvtec.root=/data"]),
        (["input=~/Bilder (2)"], ["input='~/Bilder (2)'"]),
        (["checkpoint=epoch=5.ckpt"], ["checkpoint='epoch=5.ckpt'"]),
        (["seed=1", "--cfg", "job"], ["--cfg", "job", "seed=1"]),
        (["input=2024"], ["input='2024'"]),
        (["input=1e3"], ["input='1e3'"]),
        (["input=true"], ["input='true'"]),
        (["input=a,b"], ["input='a,b'"]),
        (["input=[a,b]"], ["input=[a,b]"]),
        (["input='2024'"], ["input='2024'"]),
        (["checkpoint=5"], ["checkpoint='5'"]),
        (["targets.folder.root=2024"], ["targets.folder.root='2024'"]),
        (["logger.save_dir=2024"], ["logger.save_dir='2024'"]),
        (["monitor=2024"], ["monitor='2024'"]),
        (["resume=null"], ["resume=null"]),
        (["seed=7"], ["seed=7"]),
    ],
)  # fmt: skip
def test_text_reaches_hydra_as_it_was_typed(typed, wanted):
    assert for_hydra("train", *typed) == wanted


def test_commas_separate_the_values_of_a_sweep():
    first, second, third, *_ = for_hydra(
        "test", "-m", "checkpoint=seed=1/a.ckpt,seed=2/a.ckpt", "seed=1,2"
    )
    assert (first, second, third) == (
        "-m",
        "checkpoint='seed=1/a.ckpt','seed=2/a.ckpt'",
        "seed=1,2",
    )
    assert "input='2023','2024'" in for_hydra("predict", "-m", "input=2023,2024")


def test_several_values_need_a_multirun():
    with pytest.raises(UsageError, match=r"add -m to run each of them, or type source=\[a,b\]"):
        for_hydra("train", "source=a,b")
    with pytest.raises(UsageError, match=r"seed=range\(1,4\) gives several values; add -m"):
        for_hydra("train", "seed=range(1,4)")


@pytest.mark.parametrize(
    ("command", "typed", "wanted"),
    [
        ("data", "list", ["action=list"]),
        ("data", "verify mvtec visa", ["action=verify", "dataset@targets=[mvtec,visa]"]),
        ("data", "--fast verify mvtec", ["action=verify", "dataset@targets=[mvtec]", "fast=true"]),
        ("cache", "prune 0123", ["action=prune", "entries=['0123']"]),
        ("report", "runs/0_a=vv runs title=A", ["paths=['runs/0_a=vv','runs']", "title=A"]),
        ("report", "0_seed=1 --cfg job", ["--cfg", "job", "paths=['0_seed=1']"]),
        ("reproduce", "a/b plan_only=true", ["experiments=['a/b']", "plan_only=true"]),
    ],
)  # fmt: skip
def test_words_become_overrides(command, typed, wanted):
    assert for_hydra(command, *typed.split()) == wanted


def test_a_folder_of_a_report_may_look_like_an_override(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "attention=vv").mkdir()
    assert for_hydra("report", "attention=vv", "title=B") == ["paths=['attention=vv']", "title=B"]


@pytest.mark.parametrize(
    ("command", "typed", "said"),
    [
        ("data", "", "an action is missing; type crane data list | verify | prepare | stats"),
        ("data", "verfy mvtec", "unknown action 'verfy'; type crane data list"),
        ("cache", "wipe", "unknown action 'wipe'; type crane cache list | prune"),
        ("train", "--fast", "unknown option --fast; see crane train --help"),
        ("train", "-x", "unknown option -x"),
        ("train", "backbone", "'backbone' is not of the form KEY=VALUE"),
        ("train", "attention=[", "is not of the form KEY=VALUE"),
        ("train", "+", "is not of the form KEY=VALUE"),
        ("train", "seed=1 seed=2", "seed is given more than once: seed=1 seed=2"),
        ("train", "seed=1 ++seed=2", "seed is given more than once"),
        ("train", "source=[a] source=[b]", "source is given more than once"),
        ("data", "list mvtec targets=[visa]", "targets is given more than once"),
    ],
)
def test_mistakes(command, typed, said):
    with pytest.raises(UsageError) as caught:
        Arguments(command, typed.split())
    assert said in str(caught.value)


def test_a_folder_for_all_jobs_is_refused():
    with pytest.raises(UsageError, match=r"run_dir=one would be .*hydra\.sweep\.dir=FOLDER"):
        Arguments("train", ["-m", "seed=1,2", "run_dir=one"]).check_sweep()
    Arguments("train", ["-m", "run_dir=one,two"]).check_sweep()


def excluded(*typed):
    """What is left out of the names of jobs."""
    last = for_hydra("train", "-m", *typed)[-1]
    key, _, names = last.partition("=")
    assert key == JOB_NAME_EXCLUDES
    return set(OmegaConf.create({"names": names.replace("'", "")}).names.strip("[]").split(", "))


def test_what_all_jobs_share_is_left_out_of_their_names():
    left_out = excluded(
        "backbone=tiny", "attention=vv,qq", "seed=range(1,4)", "+source.a={root: b}",
        "hydra/launcher=joblib", "hydra.launcher.n_jobs=2",
    )  # fmt: skip
    assert {"backbone", "source.a"} <= left_out
    assert not {"attention", "seed"} & left_out
    assert set(NEVER_IN_NAMES) <= left_out


def test_what_varies_in_one_place_and_not_in_another_is_part_of_their_names():
    """Sources and targets are one group to Hydra; without it all sources would be one setting."""
    assert "dataset" not in excluded("source=[a],[b]", "targets=[c]", "seed=1,2")


def test_what_optuna_varies_is_part_of_their_names():
    assert "optimizer.lr" not in excluded("optimizer.lr=interval(0.0001,0.01)")


def test_own_job_names_are_kept():
    typed = ["-m", "attention=vv,qq", f"{JOB_NAME_EXCLUDES}=[seed]"]
    assert for_hydra("train", *typed) == typed


def test_the_names_never_shown_are_those_of_the_configuration():
    hydra = OmegaConf.load(conf_dir() / "base" / "hydra.yaml").hydra
    assert tuple(hydra.job.config.override_dirname.exclude_keys) == NEVER_IN_NAMES


def test_job_folders_are_short_distinct_and_plain():
    longest = job_folder(12, ",".join(f"group_{n}=option_{n}" for n in range(50)))
    assert longest.startswith("12_group_0=option_0_group_1=")
    assert len(longest) <= MAX_LENGTH
    assert job_folder(1, "a=b") != job_folder(2, "a=b")
    assert job_folder(0, "") == "0"
    assert (
        job_folder(3, "input='my photos/*.jpg',x=$HOME;rm") == "3_input=my_photos_.jpg_x=_HOME_rm"
    )


@pytest.mark.parametrize(
    ("typed", "is_added"),
    [
        (["-m", "hydra/sweeper=optuna", "seed=1,2"], True),
        (["-m", "hydra/sweeper=optuna", "hydra.sweeper.direction=minimize"], False),
        (["-m", "seed=1,2"], False),
        (["-m", "hydra/sweeper=basic", "seed=1,2"], False),
    ],
)
def test_optuna_maximises_unless_told_otherwise(typed, is_added):
    assert ("hydra.sweeper.direction=maximize" in for_hydra("train", *typed)) == is_added
