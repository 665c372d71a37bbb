"""What jobs of a multirun are called."""

from omegaconf import OmegaConf

from crane.cli.job_names import EXCLUDED, MAX_LENGTH, NEVER, job_folder, with_job_names
from crane.config import conf_dir


def excluded(*arguments):
    """What the last argument that `with_job_names` adds leaves out of names."""
    last = with_job_names(arguments)[-1]
    key, _, names = last.partition("=")
    assert key == EXCLUDED
    return set(OmegaConf.create({"names": names.replace("'", "")}).names.strip("[]").split(", "))


def test_what_all_jobs_share_is_no_part_of_their_names():
    left_out = excluded(
        "-m", "backbone=tiny", "attention=vv,qq", "seed=range(1,4)", "+source.a={root: b}",
        "hydra/launcher=joblib", "hydra.launcher.n_jobs=2",
    )  # fmt: skip
    assert {"backbone", "source.a"} <= left_out
    assert not {"attention", "seed"} & left_out
    assert set(NEVER) <= left_out


def test_what_varies_in_one_place_and_not_in_another_is_part_of_their_names():
    """Sources and targets are one group to Hydra; without it all sources would be one setting."""
    typed = ("dataset@source=[a],[b]", "dataset@targets=[c]", "seed=1,2")
    assert "dataset" not in excluded("-m", *typed)
    assert "seed" not in excluded("-m", "seed=4", "seed=1,2")


def test_what_optuna_varies_is_part_of_their_names():
    assert "optimizer.lr" not in excluded("-m", "optimizer.lr=interval(0.0001,0.01)")


def test_someones_own_choice_of_names_stays():
    arguments = ["-m", "attention=vv,qq", f"{EXCLUDED}=[seed]"]
    assert with_job_names(arguments) == arguments


def test_the_names_never_shown_are_those_of_the_configuration():
    hydra = OmegaConf.load(conf_dir() / "base" / "hydra.yaml").hydra
    assert tuple(hydra.job.config.override_dirname.exclude_keys) == NEVER


def test_folders_are_short_distinct_and_plain():
    longest = job_folder(12, ",".join(f"group_{n}=option_{n}" for n in range(50)))
    assert longest.startswith("12_group_0=option_0_group_1=")
    assert len(longest) <= MAX_LENGTH
    assert job_folder(1, "a=b") != job_folder(2, "a=b")
    assert job_folder(0, "") == "0"
    assert (
        job_folder(3, "input='my photos/*.jpg',x=$HOME;rm") == "3_input=my_photos_.jpg_x=_HOME_rm"
    )
