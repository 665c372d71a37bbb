"""Run the official implementation from a checkout given by the user.

https://github.com/AlirezaSalehy/Crane at 39181f9; none of it is in this repository. Its
requirements must be installed in addition to crane's.
"""

import importlib.util
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from open_clip import CLIP, OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torchvision.transforms.functional import normalize

from crane.prompts import PromptLearner
from crane.types import Prediction


def detector(
    checkout: Path,
    clip: CLIP,
    prompts: PromptLearner,
    *,
    taps: Sequence[int],
    num_blocks: int,
    image_size: int,
    device: str,
) -> Callable[[Tensor], Prediction]:
    """The official detector (E-Attn, static prompts) with given weights, as in its test.py.

    Args:
        checkout: Folder of the repository.
        clip: Weights of both towers.
        prompts: Learned prompts.
        taps: Blocks whose patches are used, counted from 1.
        num_blocks: Number of last blocks with a second stream.
        image_size: Height and width in pixels.
        device: Device of the model.

    Returns:
        A function from RGB in [0, 1] to scores and blurred maps; SciPy blurs on the CPU.
    """
    script = _script(checkout)
    script.args = settings = Namespace(
        image_size=image_size,
        features_list=list(taps),
        train_with_img_cls_prob=0,
        train_with_img_cls_type="pad_suffix",
        dino_model="none",
        both_eattn_dattn=True,
        soft_mean=True,
        use_scorebase_pooling=True,
    )
    details = {
        "Prompt_length": len(prompts.words["normal"]),
        "learnabel_text_embedding_depth": len(prompts.deep) + 1,
        "learnabel_text_embedding_length": prompts.deep.shape[1],
        "others": settings,
    }
    from models.build_model import build_model  # the checkout's

    model = build_model("", {k: v.cpu() for k, v in clip.state_dict().items()}, details)
    model.visual.replace_with_EAttn(to_layer=num_blocks + 1, type="qq+kk+vv")
    learner = script.PromptLearner(model, details)
    with torch.no_grad():
        learner.ctx_pos.copy_(prompts.words["normal"])
        learner.ctx_neg.copy_(prompts.words["anomalous"])
        for theirs, ours in zip(learner.compound_prompts_text, prompts.deep, strict=True):
            theirs.copy_(ours)
        rows, tokens, deep, _ = learner()
        text = model.encode_text_learn(rows, tokens, deep).float()
    pooling = script.Crane.ScoreBasePooling()
    score = script.ScoreCalculator(model, None, settings, learner, pooling).eval().to(device)
    pair = torch.stack(torch.chunk(text, dim=0, chunks=2), dim=1)
    score.text_features = torch.nn.functional.normalize(pair, dim=-1)

    def detect(images: Tensor) -> Prediction:
        normalised = normalize(images, list(OPENAI_DATASET_MEAN), list(OPENAI_DATASET_STD))
        scores, maps = score(normalised)
        blurred = [torch.from_numpy(gaussian_filter(m, sigma=4)) for m in maps.cpu().numpy()]
        return Prediction(scores, torch.stack(blurred))

    return detect


def _script(checkout: Path) -> Any:
    """The checkout's test.py as a module, under a name that does not shadow Python's `test`."""
    sys.path.insert(0, str(checkout))
    spec = importlib.util.spec_from_file_location("official_test", checkout / "test.py")
    if spec is None or spec.loader is None or not (checkout / "test.py").is_file():
        raise FileNotFoundError(f"no test.py in {checkout}; is it a checkout of Crane?")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
