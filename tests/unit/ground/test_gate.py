"""From a configuration to objects, and what a file may have built."""

import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import pytest
from hydra.errors import InstantiationException
from omegaconf import OmegaConf

from crane.checks import NonNegativeFloat, PositiveInt, checked
from crane.config import compose, plain
from crane.errors import InvalidValueError, UsageError
from crane.gate import FROM_FILES, build, check, from_file, renamed, resolved
from crane.identity import MODEL_KEYS


@checked
class Inner:
    def __init__(self, sigma: NonNegativeFloat = 1.0) -> None:
        self.sigma = sigma


class Outer:
    def __init__(self, size: PositiveInt, inner: Any = None, names: Sequence[str] = ()) -> None:
        self.size, self.inner, self.names = size, inner, names
        if len(set(names)) < len(names):
            raise UsageError("names must differ", key="names")


def takes_any(**more: Any) -> dict[str, Any]:
    return more


def broken(size: int) -> None:
    raise ZeroDivisionError("a fault of the program")


@pytest.fixture(autouse=True)
def parts(monkeypatch):
    module = ModuleType("parts")
    vars(module).update(Inner=Inner, Outer=Outer, takes_any=takes_any, broken=broken, text="x")
    monkeypatch.setitem(sys.modules, "parts", module)


def node(**content):
    return OmegaConf.create({"_target_": "parts.Outer", "size": 1} | content)


def test_parts_are_built_in_plain_containers():
    built = build(node(inner={"_target_": "parts.Inner", "sigma": 2}, names=["a"]), "outer")
    assert (built.size, built.inner.sigma, built.names) == (1, 2, ["a"])
    assert build(node(), "outer", inner=3).inner == 3
    assert build(node(_partial_=True), "outer")(inner=4).inner == 4


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"size": "two"}, "outer.size must be an integer of at least 1, not 'two'"),
        ({"size": True}, "outer.size must be an integer of at least 1, not true"),
        ({"size": None}, "outer.size must be an integer of at least 1, not null"),
        ({"names": "a"}, "outer.names must be a list, each entry text, not 'a'"),
        ({"names": ["a", "a"]}, "names must differ"),
        ({"wrong": 1}, "unknown key outer.wrong; outer takes size, inner, names"),
        ({"inner": {"_target_": "parts.Inner", "sigma": -1}}, "outer.inner.sigma must be a number"),
        ({"inner": {"_target_": "parts.Inner", "sigm": 1}}, "unknown key outer.inner.sigm"),
        ({"inner": [{"_target_": "parts.Inner", "sigma": "x"}]}, "outer.inner.0.sigma must be"),
        (
            {"inner": {"deep": [float("nan")]}},
            "outer.inner.deep.0 must be a finite number, not nan",
        ),
        ({"inner": {"_target_": "parts.nothing"}}, "there is no parts.nothing"),
        ({"inner": {"_target_": "nowhere.at_all"}}, "outer.inner._target_: "),
        ({"inner": {"_target_": "parts.text"}}, "parts.text is not a function or class"),
        ({"size": "${nope}"}, "size has no value: interpolation key 'nope' not found"),
        ({"size": "???"}, "size has no value: "),
    ],
)
def test_mistakes_name_the_key_as_it_is_typed(content, said):
    with pytest.raises(UsageError) as caught:
        build(node(**content), "outer")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_required_argument_is_asked_for():
    with pytest.raises(UsageError, match=r"outer\.size is required"):
        build(OmegaConf.create({"_target_": "parts.Outer"}), "outer")


def test_a_function_of_any_arguments_takes_any():
    assert build(OmegaConf.create({"_target_": "parts.takes_any", "a": 1}), "x") == {"a": 1}


def test_a_value_that_a_constructor_refuses_gets_its_full_key():
    with pytest.raises(InvalidValueError, match=r"^outer\.inner\.sigma must be"):
        build(node(inner={"_target_": "parts.Inner", "_args_": [-1]}), "outer")


def test_a_fault_of_the_program_is_not_dressed_up():
    with pytest.raises(InstantiationException) as caught:
        build(OmegaConf.create({"_target_": "parts.broken", "size": 1}), "x")
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_checking_builds_nothing():
    check(OmegaConf.create({"_target_": "parts.broken", "size": 1}), "x")
    with pytest.raises(UsageError, match=r"x\.size must be an integer"):
        check(OmegaConf.create({"_target_": "parts.broken", "size": "a"}), "x")


def test_earlier_names_lead_to_todays():
    assert renamed("crane.models.Scoring") == "crane.methods.Scoring"
    assert renamed("crane.attention.SecondStream") == "crane.attention.SecondStream"
    with pytest.raises(UsageError, match=r"it is now crane\.methods\.Scoring"):
        build(OmegaConf.create({"_target_": "crane.models.Scoring"}), "scoring")


def test_values_of_a_configuration_are_filled_in():
    config = OmegaConf.create({"a": "${b.c}", "b": {"c": [1, "${d}"]}, "d": 2})
    assert resolved(config, "") == {"a": [1, 2], "b": {"c": [1, 2]}, "d": 2}
    assert resolved(3, "x") == 3


def test_a_file_may_hold_every_model_that_conf_can_make():
    for method in ("crane", "crane_plus"):
        config = plain(compose("train", [f"method={method}"]), resolve=False)
        stored = {key: config[key] for key in MODEL_KEYS}
        assert from_file(stored, "a") == stored


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"scoring": {"blur_sigma": {"_target_": "os.system"}}}, "build os.system as scoring.blur"),
        ({"scoring": {"_target_": "os.system"}}, "build os.system as scoring"),
        ({"scoring": {"_target_": "crane.prompts.PromptLearner"}}, "which a file may not do"),
        ({"prompt": {"words": [{"_target_": "os.system"}]}}, "build os.system as prompt.words.0"),
        ({"prompt": {"_args_": [1]}}, "holds prompt._args_"),
        ({"prompt": {"_recursive_": False}}, "holds prompt._recursive_"),
        ({"prompt": {"depth": "${oc.env:SECRET}"}}, "refers to ${oc.env:SECRET} as prompt.depth"),
        ({"prompt": {"depth": "a${image_size}"}}, "refers to a${image_size}"),
        ({"weights_dir": {"_target_": "os.system"}}, "build os.system as weights_dir"),
    ],
)
def test_a_file_that_wants_anything_else_is_refused(config, said):
    with pytest.raises(UsageError) as caught:
        from_file(config, "a.safetensors")
    assert said in str(caught.value)
    assert "a.safetensors" in str(caught.value)


def test_a_file_decides_neither_folders_nor_downloads():
    stored = {"backbone": {"model": {"weights_dir": "/theirs", "allow_download": True}}}
    assert from_file(stored, "a") == {
        "backbone": {
            "model": {"weights_dir": "${weights_dir}", "allow_download": "${allow_download}"}
        }
    }


def test_a_file_of_version_0_1_builds_what_is_called_otherwise_now():
    stored = {"scoring": {"_target_": "crane.models.Scoring", "temperature": 0.07}}
    assert from_file(stored, "a")["scoring"]["_target_"] == "crane.methods.Scoring"


def test_what_files_may_build_exists():
    from hydra.utils import get_object

    for names in FROM_FILES.values():
        for name in names:
            assert callable(get_object(name))
