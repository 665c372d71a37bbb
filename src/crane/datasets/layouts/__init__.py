"""How data sets lie on disk: one small function for each kind of layout.

A layout is called with the data set's name, a folder and a split. It answers None if the folder is
not laid out its way, and otherwise says which classes lie there and how to read each.
"""

from crane.datasets.layouts.csv_lists import headct_csv, visa_csv
from crane.datasets.layouts.dagm import dagm, dagm_balanced
from crane.datasets.layouts.kinds import Layout, ReadClass
from crane.datasets.layouts.ksdd import ksdd, ksdd_thirds
from crane.datasets.layouts.simple import folders, label_folders, listed, pairs

__all__ = [
    "Layout",
    "ReadClass",
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
