"""Crane and Crane+: zero-shot anomaly detection with frozen CLIP and learned prompts.

>>> import crane
>>> detector = crane.load("mini", device="cpu")
>>> detector.image_size
224
"""

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crane.prediction import AnomalyDetector, ImageResult, load

__all__ = ["AnomalyDetector", "ImageResult", "__version__", "load"]

try:
    __version__ = version("crane-ad")
except PackageNotFoundError:  # run from the sources, not installed
    __version__ = "0+unknown"


def __getattr__(name: str) -> Any:
    """Import what needs torch on first use; commands that need no model do without."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from crane import prediction

    return getattr(prediction, name)
