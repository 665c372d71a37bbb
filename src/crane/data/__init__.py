"""Data for training and testing: which images there are, opening them, and the loaders."""

from crane.data.datamodule import CraneDataModule
from crane.data.dataset import ImageDataset, ImageItem
from crane.data.files import IMAGE_SUFFIXES, is_image, list_images
from crane.data.folder import index_folder
from crane.data.images import RESIZERS, image_to_tensor, read_mask, read_rgb, resize_mask
from crane.data.index import Index
from crane.data.meta_json import index_auto, index_meta_json
from crane.data.pairing import pair_masks
from crane.data.regions import label_regions
from crane.data.samplers import UnevenSampler

__all__ = [
    "IMAGE_SUFFIXES",
    "RESIZERS",
    "CraneDataModule",
    "ImageDataset",
    "ImageItem",
    "Index",
    "UnevenSampler",
    "image_to_tensor",
    "index_auto",
    "index_folder",
    "index_meta_json",
    "is_image",
    "label_regions",
    "list_images",
    "pair_masks",
    "read_mask",
    "read_rgb",
    "resize_mask",
]
