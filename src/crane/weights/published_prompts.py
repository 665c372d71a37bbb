"""Named checkpoints as files to find, download and verify."""

from crane.named_prompts import EPOCH, MINI, published_files
from crane.weights.catalogue import WeightFile
from crane.weights.embedded import MINI_PROMPTS

SOURCE = (
    "https://raw.githubusercontent.com/AlirezaSalehy/Crane/"
    "39181f9f718a28c1b06b5aa72bfb81e74b9a2cc3/checkpoints"
)
"""Where the authors keep them, at a commit (MIT)."""


def described_prompts(name: str) -> WeightFile | None:
    """Look up named prompts; None for any other text.

    Args:
        name: A name, with `@EPOCH` unless the last is meant.

    >>> described_prompts("crane_plus_visa").name, described_prompts("crane_plus_visa@1").name
    ('crane_plus_visa@5', 'crane_plus_visa@1')
    >>> described_prompts("epoch_5.pth") is None
    True
    """
    option = (f"checkpoint={name}",)
    if name == MINI:
        return WeightFile(name, (MINI_PROMPTS,), "MIT", size_mb=1, options=option, embedded=True)
    whole = name if "@" in name else f"{name}@{EPOCH}"
    found = published_files().get(whole)
    if found is None:
        return None
    return WeightFile(
        *(whole, (found.file,), "MIT", f"{SOURCE}/{found.file}"),
        size_mb=max(1, round(found.num_bytes / 1e6)),
        sha256=found.sha256,
        options=option,
    )
