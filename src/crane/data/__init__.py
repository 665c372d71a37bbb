"""Data for training and testing: lists of images, opening them, and loaders."""

from typing import TYPE_CHECKING, Any

from crane.data.filenames import IMAGE_SUFFIXES, is_image, list_images
from crane.data.index import Index
from crane.data.labelled_folders import index_folder
from crane.data.meta_json import index_meta_json

if TYPE_CHECKING:
    from crane.data.datamodule import CraneDataModule

__all__ = [
    "IMAGE_SUFFIXES",
    "CraneDataModule",
    "Index",
    "index_folder",
    "index_meta_json",
    "is_image",
    "list_images",
]


def __getattr__(name: str) -> Any:
    """Import the data module on first use, since listing data sets needs no torch."""
    if name != "CraneDataModule":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from crane.data.datamodule import CraneDataModule

    return CraneDataModule
