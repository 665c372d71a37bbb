"""A data set that the package draws itself: one source domain, three target domains.

Nothing is downloaded; the same version gives the same pixels on every machine.
"""

from crane.drawn.catalog import (
    EMBEDDED_VERSION,
    embedded_domain,
    embedded_domains,
    reserved_generators,
)
from crane.drawn.indexing import index_embedded
from crane.drawn.writer import make_embedded

__all__ = [
    "EMBEDDED_VERSION",
    "embedded_domain",
    "embedded_domains",
    "index_embedded",
    "make_embedded",
    "reserved_generators",
]
