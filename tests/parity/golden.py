"""The golden files in the terms of `crane`: what one holds, and the model that must repeat it."""

import json
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.utils import instantiate
from torch import Tensor

from crane.methods import Crane, CraneLoss
from reference.build import ATTENTION_OPTION, build, composed
from reference.generated import generated_clip_state_dict, generated_prompts

FOLDER = Path(__file__).parent / "goldens"
TRAININGS = sorted(FOLDER.glob("training_*.npz"))
RUNS = sorted(set(FOLDER.glob("*.npz")) - set(TRAININGS))
AGGREGATE_OPTION = {
    "mean of softmax maps": "mean_of_softmax",
    "softmax of mean logits": "softmax_of_mean",
}


@dataclass(frozen=True)
class Golden:
    """One file: its configuration and its arrays."""

    config: dict[str, Any]
    arrays: dict[str, Tensor]

    @classmethod
    def read(cls, path: Path) -> "Golden":
        with np.load(path) as file:
            config = json.loads(str(file["config_json"]))
            arrays = {name: file[name] for name in file.files if name != "config_json"}
        return cls(config, {name: torch.from_numpy(array) for name, array in arrays.items()})

    @property
    def batch_mean(self) -> bool:
        """Whether D-Attn's mean ran over the batch in the golden run; else one image at a time."""
        return self.config.get("d_attn_mean") == "batch"

    @property
    def context_in_training(self) -> bool:
        return self.config["prompt_mode"] != "none" and self.config.get("context", True)

    def overrides(self) -> list[str]:
        """The command line of this run; what it leaves out is published, and so the default."""
        config = self.config
        with_guide, mode = config["d_attn"], config["prompt_mode"]
        variant = config.get("attention", "qq+kk+vv")
        if with_guide and not config.get("both_e_and_d", True):
            variant = "none"
        testing = mode != "none" and config.get("context", True)
        overrides = [
            f"method={'crane_plus' if with_guide else 'crane'}",
            f"attention={ATTENTION_OPTION.get(variant, variant)}",
            f"prompt={mode}",
            f"prompt.context_in_testing={str(testing).lower()}",
            f"loss={'four_taps' if self.num_taps == 4 else 'one_tap'}",
            "scoring.blur_sigma=0",  # golden maps are those before the blur
        ]
        if "aggregate" in config:
            overrides.append(f"scoring={AGGREGATE_OPTION[config['aggregate']]}")
        if not config.get("fusion", True):
            overrides.append("scoring.fusion_weight=0")
        if "attention_blocks" in config:  # "6..24 of 24 (1-based)": the last ones, at any depth
            first, last, depth = map(int, re.findall(r"\d+", config["attention_blocks"])[:3])
            assert last == depth
            overrides.append(f"attention.num_blocks={last - first + 1}")
        if with_guide and "beta" in config:
            overrides.append(f"guide.attention.beta={config['beta']}")
        return overrides

    @property
    def num_taps(self) -> int:
        """How many equal local embeddings the official Crane holds: one tensor, tapped so often."""
        return len(self.config["official_features_list"])

    def model(self, *more: str, features: Tensor | None = None) -> Crane:
        """The model of this run, with `more` overrides, its guide's `features` known already."""
        state, prompts = weights(self.config["weight_seed"])
        return build([*self.overrides(), *more], state, prompts, features)

    def loss(self) -> CraneLoss:
        """The published losses."""
        return instantiate(composed(*self.overrides()).loss, _convert_="all")


@lru_cache(maxsize=2)
def weights(seed: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The CLIP and the prompts behind every golden file of a seed."""
    return generated_clip_state_dict(seed), generated_prompts(seed)
