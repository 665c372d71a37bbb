"""Groups, options, keys and values are checked before anything runs."""

import re

import pytest
from omegaconf import OmegaConf

from crane.cli.validation import (
    check_configuration,
    check_metrics,
    groups,
    options,
)
from crane.config import compose, conf_dir
from crane.errors import UsageError

pytestmark = pytest.mark.usefixtures("composed_once")

ACCEPTED = {
    "train": [
        "source=[mvtec,visa]",
        "targets=visa",
        "source.mvtec.root=/data",
        "attention=qq+kk",
        "attention.num_blocks=3",
        "guide=tiny",
        "guide.features.image_size=56",
        "method=crane_plus",
        "+trainer.overfit_batches=1",
        "~trainer.gradient_clip_val",
        "hydra.run.dir=/tmp/here",
        "data.num_workers=auto",
        "trainer.devices=auto",
        "image_size=${backbone.image_size}",
        "optimizer.betas=[0.5,0.9]",
        "optimizer.betas.0=0.5",
        "table_columns=[aupro]",
        "+logger.flush_logs_every_n_steps=1",
        "+mine=3",
        "loss.focal_gamma=${mine}",
    ],
    "test": ["checkpoint=a.pth", "targets=[btad]", "metrics=exact", "scoring.blur_sigma=2"],
    "predict": ["checkpoint=a.ckpt", "input=photos", "overlay.scale.vmax=0.5", "threshold=0.5"],
    "weights": ["method=crane_plus", "backbone=clip_vit_b16", "weights_dir=/w"],
    "demo": ["trainer.max_epochs=1", "attention=vv"],
}


@pytest.mark.parametrize("command", ACCEPTED)
def test_what_is_right_is_accepted(check, command):
    check(command, *ACCEPTED[command])


@pytest.mark.parametrize(
    "sweep",
    [
        "attention=vv,qq+kk",
        "attention=glob(*)",
        "attention=choice(vv,clip)",
        "seed=1,2,3",
        "seed=range(1,4)",
        "optimizer.lr=interval(0.1,0.2)",
        "source=[mvtec],[visa]",
        "test=true,false",
        "table_columns=[aupro],[image_ap]",
    ],
)
def test_sweeps_are_accepted(check, sweep):
    check("train", "-m", sweep)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("attention=qqq", "unknown option 'qqq' of attention; did you mean qq? choose one of clip"),
        ("attention=vv,qqq", "unknown option 'qqq' of attention; did you mean qq?"),
        ("attention=choice(vv,qqq)", "unknown option 'qqq' of attention"),
        ("attention=glob(*x)", "unknown option 'attention=glob(*x)' of attention; choose"),
        ("attention=", "unknown option '' of attention"),
        ("attention=null", "unknown option 'null' of attention"),
        ("~logger", "unknown option '~logger' of logger; choose one of csv, none"),
        ("source=[mvtc]", "unknown option 'mvtc' of source; did you mean mvtec?"),
        ("source=[visa,mvtc]", "unknown option 'mvtc' of source; did you mean mvtec?"),
        ("source=[mvtec],[mvtc]", "unknown option 'mvtc' of source; did you mean mvtec?"),
        ("targets=vissa", "unknown option 'vissa' of targets; did you mean visa?"),
    ],
)  # fmt: skip
def test_a_misspelt_option_is_refused_with_the_alternatives(check, override, said):
    with pytest.raises(UsageError) as caught:
        check("train", "-m", override)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("override", "nearest"),
    [
        ("attenion=vv", "attention"),
        ("soruce=[mvtec]", "source"),
        ("target=[visa]", "targets"),
        ("attention.num_block=3", "attention.num_blocks"),
        ("batch_size=3", "data.batch_size"),
        ("epochs=3", "epoch"),
        ("trainer.max_epoch=3", "trainer.max_epochs"),
        ("source.mvtecc.root=/x", "source.mvtec.root"),
        ("optimizer.betas.7=0.5", "optimizer.betas"),
        ("~trainer.max_epoch", "trainer.max_epochs"),
        ("++scoring.blur_sigm=1", "scoring.blur_sigma"),
        ("zzz=1", "seed"),
        ("=3", "seed"),
    ],
)
def test_a_misspelt_key_is_refused_with_the_nearest(check, override, nearest):
    with pytest.raises(UsageError, match="unknown key") as caught:
        check("train", override)
    guesses = str(caught.value).partition("; ")[2].partition(" (")[0]
    assert nearest in re.findall(r"[\w.]+", guesses)


def test_a_key_of_an_option_not_chosen_is_refused(check):
    with pytest.raises(UsageError, match=r"unknown key guide\.features\.image_size"):
        check("train", "guide.features.image_size=56")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("+experiment=foo", "unknown key experiment; nothing reads +experiment=foo"),
        ("+cache.glow=1", "unknown key cache.glow; nothing reads"),
        ("+method.year=2025", "unknown key method.year"),
        ("+attention@elsewhere=vv", "unknown key elsewhere"),
        ("+foo@bar=1", "unknown group foo in +foo@bar=1; choose one of attention, backbone"),
        ("+seed=1", "seed exists already; type seed=1"),
    ],
)
def test_a_key_that_nothing_reads_is_refused(check, override, said):
    with pytest.raises(UsageError) as caught:
        check("train", override)
    assert said in str(caught.value)


def test_groups_in_the_wrong_place_are_refused(check):
    with pytest.raises(UsageError, match=r"did you mean source=\[…\] or targets=\[…\]"):
        check("train", "dataset=mvtec")
    with pytest.raises(UsageError, match="Could not override 'data'"):
        check("predict", "data=default")
    with pytest.raises(UsageError, match="attention@elsewhere"):
        check("train", "attention@elsewhere=vv")


def test_missing_keys_are_all_named():
    config = OmegaConf.create({"a": "???", "b": {"c": "???", "d": 1}, "e": "${b.d}"})
    with pytest.raises(UsageError, match=r"a and b\.c are required: crane train a=… b\.c=…"):
        check_configuration(config, "train")
    check_configuration(OmegaConf.create({"b": {"d": 1}, "e": "${b.d}"}), "train")


@pytest.mark.parametrize("key", ["objective", "monitor", "table_columns"])
def test_metrics_that_nothing_measures_are_refused_before_any_work(key):
    def typed(name):
        value = f"val/{name}" if key == "monitor" else name
        return compose(
            "train", [f"{key}=[{value}]" if key == "table_columns" else f"{key}={value}"]
        )

    check_configuration(typed("aupro"), "train")
    with pytest.raises(UsageError, match=rf"{key}: unknown .*aupr'; did you mean .*aupro"):
        check_configuration(typed("aupr"), "train")


def test_thresholds_are_columns_and_the_mean_is_monitored():
    check_metrics(compose("train", ["table_columns=[pixel_f1max_threshold]", "monitor=val/mean"]))


def test_groups_and_options_are_those_on_disk():
    found = groups()
    assert list(found) == sorted(found)
    assert "base" not in found
    assert found["metrics"] == options(conf_dir() / "metrics")
    for name, names in found.items():
        assert all((conf_dir() / name / f"{option}.yaml").is_file() for option in names)
