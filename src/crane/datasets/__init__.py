"""The published data sets: cards, layouts, and the tools of `crane data`."""

from crane.datasets.card import Card, Counts, read_card
from crane.datasets.finding import index_set

__all__ = ["Card", "Counts", "index_set", "read_card"]
