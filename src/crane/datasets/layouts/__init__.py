"""How data sets lie on disk: one small function per layout (see `crane.data.index.Layout`)."""

from crane.data.labelled_folders import folders
from crane.data.meta_json import listed
from crane.datasets.layouts.by_mask import ksdd, ksdd_thirds, label_folders, pairs
from crane.datasets.layouts.by_table import dagm, dagm_balanced, headct_csv, visa_csv

__all__ = [
    "dagm",
    "dagm_balanced",
    "folders",
    "headct_csv",
    "ksdd",
    "ksdd_thirds",
    "label_folders",
    "listed",
    "pairs",
    "visa_csv",
]
