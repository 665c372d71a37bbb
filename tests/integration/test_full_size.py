"""The paper's own geometry, with random weights."""

import pytest
import torch

from crane.config import compose
from crane.methods import build_model


@pytest.mark.slow
@pytest.mark.parametrize("method", ["crane", "crane_plus"])
def test_the_full_size_model_predicts_one_image_on_the_cpu(method):
    guide = ["guide=dinov2_vitb14_reg_timm", "guide.features.weights=random"]
    overrides = ["backbone.model.weights=random", f"method={method}"]
    overrides += guide if method == "crane_plus" else []
    model = build_model(compose("train", overrides))
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 43_008
    with torch.inference_mode():
        tokens = model.vision(torch.rand(1, 3, 518, 518))
        text = model.encode_prompts(tokens, with_context=True)
        prediction = model.detect(tokens, text, (518, 518))
    assert tokens.grid == (37, 37)
    assert tokens.patches.shape == (1 if method == "crane" else 2, 1, 37 * 37, 768)
    assert prediction.map.shape == (1, 518, 518)
    assert torch.isfinite(prediction.map).all()
    assert 0 < prediction.score.item() < 1
