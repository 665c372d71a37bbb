"""Crane and Crane+: zero-shot anomaly detection with frozen CLIP and learned prompts."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("crane-ad")
except PackageNotFoundError:  # run from the sources, not installed
    __version__ = "0+unknown"
