"""The models that the package carries: a small CLIP and a small guide, pretrained on drawings."""

import json
import tempfile
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

MINI_FOLDER = Path(str(files("crane"))) / "weights" / "mini"
"""Weights, configuration, vocabulary and model card of the embedded models."""
MINI_CLIP = "crane-mini"
"""The small CLIP's name among open_clip's models."""
MINI_PROMPTS = "crane-mini-prompts.safetensors"
"""Prompts of Crane for the small CLIP, trained as in `crane demo`."""
MINI_GUIDE = "crane-mini-guide"
"""The small guide's name among the weight files."""


@cache
def open_clip_with_mini() -> Any:
    """Import open_clip and register the small CLIP in it, so that its name works like any other.

    open_clip imports torchvision and timm, which takes seconds: import it through this function,
    where it is used.

    >>> open_clip_with_mini().get_tokenizer("crane-mini").decode([598])
    'damaged '
    """
    import open_clip

    config = json.loads((MINI_FOLDER / f"{MINI_CLIP}.json").read_text())
    kwargs = config["text_cfg"]["tokenizer_kwargs"]
    kwargs["bpe_path"] = str(MINI_FOLDER / kwargs["bpe_path"])  # open_clip takes whole paths only
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"{MINI_CLIP}.json")
        path.write_text(json.dumps(config))
        open_clip.add_model_config(path)
    return open_clip
