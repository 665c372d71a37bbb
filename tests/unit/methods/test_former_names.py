"""Documented names of earlier versions still import."""

import importlib
import sys

import pytest

from crane import methods, training

EARLIER = (
    *("MODEL_KEYS", "Crane", "CraneLoss", "Losses", "Scoring", "VisionEncoder", "build_model"),
    *("compile_towers", "dice_loss", "focal_loss", "is_official", "load_prompts", "model_config"),
    "prompts_from_official",
)
"""What `crane.models` exported in version 0.1."""


def test_crane_models_is_crane_methods_with_a_warning(monkeypatch):
    monkeypatch.delitem(sys.modules, "crane.models", raising=False)
    with pytest.warns(DeprecationWarning, match=r"crane\.models is now crane\.methods"):
        models = importlib.import_module("crane.models")
    assert {*EARLIER, *methods.__all__} <= {*models.__all__}
    assert models.build_model is methods.build_model
    assert all(hasattr(models, name) for name in models.__all__)


def test_training_still_loads_models():
    assert training.load_model is methods.load_model
