"""The models that the package carries: a small CLIP and a small guide, pretrained on drawings.

open_clip learns of the small CLIP when this module is imported, so that its name works wherever the
name of one of open_clip's own models does.
"""

import json
import tempfile
from importlib.resources import files
from pathlib import Path

import open_clip

MINI_FOLDER = Path(str(files("crane"))) / "weights" / "mini"
"""Weights, configuration, vocabulary and model card of the embedded models."""
MINI_CLIP = "crane-mini"
"""The small CLIP's name among open_clip's models."""
MINI_GUIDE = "crane-mini-guide"
"""The small guide's name among the weight files."""


def register_mini() -> None:
    """Make open_clip know the small CLIP: its geometry and where its vocabulary lies.

    >>> register_mini()
    >>> open_clip.get_tokenizer("crane-mini").decode([598])
    'damaged '
    """
    config = json.loads((MINI_FOLDER / f"{MINI_CLIP}.json").read_text())
    kwargs = config["text_cfg"]["tokenizer_kwargs"]
    kwargs["bpe_path"] = str(MINI_FOLDER / kwargs["bpe_path"])  # open_clip takes whole paths only
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"{MINI_CLIP}.json")
        path.write_text(json.dumps(config))
        open_clip.add_model_config(path)


register_mini()
