"""A data set that the package draws itself: one source domain, three target domains.

Nothing is downloaded; the same version gives the same pixels on every machine.
"""

from crane.data.embedded.catalog import (
    EMBEDDED_VERSION,
    embedded_domain,
    embedded_domains,
    reserved_generators,
)
from crane.data.embedded.contact import contact_sheet
from crane.data.embedded.indexing import index_embedded
from crane.data.embedded.writer import make_embedded

__all__ = [
    "EMBEDDED_VERSION",
    "contact_sheet",
    "embedded_domain",
    "embedded_domains",
    "index_embedded",
    "make_embedded",
    "reserved_generators",
]
