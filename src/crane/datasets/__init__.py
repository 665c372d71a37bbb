"""The published data sets: cards, layouts, and the tools of `crane data`."""

from crane.datasets.card import Card, ImageCounts
from crane.datasets.finding import index_set

__all__ = ["Card", "ImageCounts", "index_set"]
