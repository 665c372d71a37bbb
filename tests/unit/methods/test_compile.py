"""`compile=…`: the towers run compiled, with the same answers and the same names."""

import logging

import pytest
import torch
from torch import nn

from crane.config import compose
from crane.errors import UsageError
from crane.methods import build_model, compile_towers

TINY = ("backbone=tiny", "guide=tiny", "method=crane_plus", "image_size=56")


@pytest.fixture
def compiled(monkeypatch):
    """What has been compiled, in which mode, in the compiler's place."""
    calls = []

    def record(self, mode):
        calls.append((type(self).__name__, mode))

    monkeypatch.setattr(nn.Module, "compile", record)
    return calls


@pytest.mark.parametrize("mode", ["default", "reduce-overhead", "max-autotune"])
def test_both_towers_are_compiled_and_the_wait_is_announced(mode, compiled, caplog):
    caplog.set_level(logging.INFO)
    compile_towers(build_model(compose("train", TINY)), mode)
    assert compiled == [("VisionEncoder", mode), ("TextTower", mode)]
    assert "the first batch waits for the compiler" in caplog.text


@pytest.mark.parametrize("mode", ["none", False])
def test_nothing_is_compiled_unless_asked_for(mode, compiled, caplog):
    compile_towers(build_model(compose("train", TINY)), mode)
    assert compiled == []
    assert caplog.text == ""


def test_an_unknown_mode_is_refused():
    with pytest.raises(
        UsageError,
        match=r"compile must be none, default, reduce-overhead or max-autotune .*, not 'fast'",
    ):
        compile_towers(build_model(compose("train", TINY)), "fast")


@pytest.mark.slow
def test_compiled_towers_say_the_same():
    model = build_model(compose("train", TINY))
    images = torch.rand(2, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    names = list(model.state_dict())
    with torch.no_grad():
        plain = model(images)
        compile_towers(model, "default")
        compiled = model(images)
    torch.testing.assert_close(compiled.score, plain.score, atol=1e-5, rtol=0)
    torch.testing.assert_close(compiled.map, plain.map, atol=1e-5, rtol=0)
    assert list(model.state_dict()) == names
