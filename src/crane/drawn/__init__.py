"""Data sets that the package draws itself: one source domain, three target domains.

Nothing is downloaded; the same version has the same pixels on every machine.
"""

from crane.drawn.domains import (
    EMBEDDED_VERSION,
    drawn_dir,
    embedded_domain,
    embedded_domains,
    index_embedded,
    make_embedded,
    reserved_generators,
)

__all__ = [
    "EMBEDDED_VERSION",
    "drawn_dir",
    "embedded_domain",
    "embedded_domains",
    "index_embedded",
    "make_embedded",
    "reserved_generators",
]
