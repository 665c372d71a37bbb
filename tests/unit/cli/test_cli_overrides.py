from functools import cache

import pytest

from crane.cli import overrides
from crane.cli.overrides import check_overrides, groups, options, with_short_names
from crane.config import compose, conf_dir
from crane.errors import UsageError


@pytest.fixture(autouse=True)
def _composed_once(monkeypatch):
    """Each choice of groups is composed once; checking keys changes nothing of it."""
    monkeypatch.setattr(overrides, "compose", lambda command, chosen: once(command, *chosen))


@cache
def once(command, *chosen):
    return compose(command, chosen)


ACCEPTED = {
    "train": [
        "source=[mvtec,visa]",
        "targets=visa",
        "targets=[]",
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
        "resume='a b.ckpt'",
    ],
    "test": ["checkpoint=a.pth", "targets=[btad]", "metrics=exact", "scoring.blur_sigma=2"],
    "predict": ["checkpoint=a.ckpt", "input=photos", "overlay.scale.vmax=0.5", "threshold=0.5"],
    "weights": ["method=crane_plus", "backbone=clip_vit_b16", "weights_dir=/w"],
    "demo": ["trainer.max_epochs=1", "attention=vv"],
}


@pytest.mark.parametrize("command", ACCEPTED)
def test_what_is_right_is_accepted(command):
    check_overrides(command, with_short_names(ACCEPTED[command]))


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
    ],
)
def test_sweeps_are_accepted(sweep):
    check_overrides("train", ["-m", *with_short_names([sweep])])


@pytest.mark.parametrize(
    ("override", "shown"),
    [
        ("attention=qqq", ["attention out of clip, kk", "'qqq'", "did you mean qq?"]),
        ("attention=vv,qqq", ["'qqq'", "did you mean qq?"]),
        ("attention=choice(vv,qqq)", ["'qqq'"]),
        ("attention=glob(*x)", ["attention out of clip", "glob(*x)"]),
        ("attention=", ["attention out of clip", "''"]),
        ("attention=null", ["attention out of clip", "'null'"]),
        ("~logger", ["logger out of csv, none", "'~logger'"]),
        ("source=[mvtc]", ["'mvtc'", "did you mean mvtec?"]),
        ("source=[visa,mvtc]", ["'mvtc'", "did you mean mvtec?"]),
        ("source=[mvtec],[mvtc]", ["'mvtc'", "did you mean mvtec?"]),
        ("targets=vissa", ["'vissa'", "did you mean visa?"]),
    ],
)
def test_a_misspelt_option_is_refused_with_the_alternatives(override, shown):
    with pytest.raises(UsageError) as caught:
        check_overrides("train", with_short_names([override]))
    for part in shown:
        assert part in str(caught.value)


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
def test_a_misspelt_key_is_refused_with_the_nearest(override, nearest):
    with pytest.raises(UsageError) as caught:
        check_overrides("train", with_short_names([override]))
    wanted = str(caught.value).partition(", but got")[0]
    assert nearest in wanted.replace(",", "").split()


def test_a_key_of_an_option_not_chosen_is_refused():
    with pytest.raises(UsageError, match="a key of the configuration"):
        check_overrides("train", ["guide.features.image_size=56"])


@pytest.mark.parametrize(
    ("override", "shown"),
    [
        ("seed=one", "a number, but got 'one' .change seed"),
        ("seed=1,two", "a number, but got 'two'"),
        ("seed=", "a number, but got ''"),
        ("seed='7x'", "a number, but got '7x'"),
        ("data.batch_size=many", "change data.batch_size"),
        ("test=maybe", "true or false, but got 'maybe' .change test"),
        ("allow_download=flase", "true or false, but got 'flase'"),
    ],
)
def test_text_in_the_place_of_a_number_or_truth_value_is_refused(override, shown):
    with pytest.raises(UsageError, match=shown):
        check_overrides("train", [override])


@pytest.mark.parametrize("typed", ["backbone", "a b", "attention=[", "+"])
def test_what_is_no_override_is_refused(typed):
    with pytest.raises(UsageError, match="of the form KEY=VALUE"):
        check_overrides("train", [typed])


def test_groups_in_the_wrong_place_are_refused():
    with pytest.raises(UsageError, match=r"did you mean source=\[…\] or targets=\[…\]"):
        check_overrides("train", ["dataset=mvtec"])
    with pytest.raises(UsageError, match="Could not override 'data'"):
        check_overrides("predict", ["data=default"])
    with pytest.raises(UsageError, match="attention@elsewhere"):
        check_overrides("train", ["attention@elsewhere=vv"])


def test_groups_and_options_are_those_on_disk():
    found = groups()
    assert list(found) == sorted(found)
    assert "base" not in found
    assert found["metrics"] == options(conf_dir() / "metrics") == ["default", "exact"]
    for name, names in found.items():
        assert all((conf_dir() / name / f"{option}.yaml").is_file() for option in names)
