"""Which domains there are, and which generators and words they keep for themselves."""

from typing import Literal

from crane.drawn import (
    boards,
    boards_defects,
    fabrics,
    fabrics_defects,
    parts,
    parts_defects,
    photos,
    photos_defects,
)
from crane.drawn.scene import Domain
from crane.errors import UsageError

EMBEDDED_VERSION = "1"
"""Changes whenever a pixel, a file or a name of the embedded data changes."""

_PARTS = Domain(
    name="parts",
    role="source",
    about="machined and moulded parts on a worktop",
    classes={
        "washer": parts.washer,
        "nut": parts.nut,
        "tablet": parts.tablet,
        "button": parts.button,
    },
    defects=parts_defects.DEFECTS,
    kinds={
        "washer": ("chip", "crack", "rust"),
        "nut": ("chip", "crack", "rust"),
        "tablet": ("chip", "crack", "blot"),
        "button": ("chip", "crack", "blot"),
    },
    num_train=4,
    num_good=24,
    num_per_kind=8,
)
_FABRICS = Domain(
    name="fabrics",
    role="target",
    about="woven and knitted cloth",
    classes={
        "linen": fabrics.linen,
        "denim": fabrics.denim,
        "tartan": fabrics.tartan,
        "knit": fabrics.knit,
    },
    defects=fabrics_defects.DEFECTS,
    kinds={
        "linen": ("hole", "snag", "misweave"),
        "denim": ("hole", "fade", "misweave"),
        "tartan": ("hole", "snag", "fade"),
        "knit": ("hole", "snag", "fade"),
    },
    num_train=4,
    num_good=16,
    num_per_kind=6,
)
_BOARDS = Domain(
    name="boards",
    role="target",
    about="assembled circuit boards",
    classes={"driver": boards.driver, "matrix": boards.matrix, "socket": boards.socket},
    defects=boards_defects.DEFECTS,
    kinds={
        "driver": ("missing", "skewed", "burn"),
        "matrix": ("missing", "burn", "bridge"),
        "socket": ("skewed", "burn", "bridge"),
    },
    num_train=4,
    num_good=16,
    num_per_kind=6,
)
_PHOTOS = Domain(
    name="photos",
    role="target",
    about="real photographs of surfaces, the defects painted in",
    classes={
        "brick": photos.brick,
        "gravel": photos.gravel,
        "grass": photos.grass,
        "tissue": photos.tissue,
    },
    defects=photos_defects.DEFECTS,
    kinds={
        "brick": ("spray", "spill", "gouge"),
        "gravel": ("spray", "spill", "litter"),
        "grass": ("spray", "withering", "litter"),
        "tissue": ("fold", "bubble", "deposit"),
    },
    num_train=4,
    num_good=16,
    num_per_kind=6,
)
_DOMAINS = {domain.name: domain for domain in (_PARTS, _FABRICS, _BOARDS, _PHOTOS)}


def embedded_domains(role: Literal["source", "target"] | None = None) -> tuple[str, ...]:
    """Name the embedded domains, the source first.

    >>> embedded_domains("source"), embedded_domains("target")
    (('parts',), ('fabrics', 'boards', 'photos'))
    """
    return tuple(name for name, domain in _DOMAINS.items() if role in (None, domain.role))


def embedded_domain(name: str) -> Domain:
    """Look up a domain: its role, classes, kinds of defect and generators.

    >>> embedded_domain("photos").kinds["tissue"]
    ('fold', 'bubble', 'deposit')

    Raises:
        UsageError: There is no such domain.
    """
    if name not in _DOMAINS:
        key = "source.NAME.domain or targets.NAME.domain"
        raise UsageError(f"an embedded domain out of {', '.join(_DOMAINS)}", name, key=key)
    return _DOMAINS[name]


def reserved_generators() -> dict[str, str]:
    """Every function that draws an embedded domain, and the word for what it draws.

    Data that a model is pretrained on must use none of these functions and words, or the embedded
    targets would no longer be unseen.

    >>> reserved_generators()["crane.drawn.fabrics.linen"]
    'linen'
    """
    return {
        generator: generator.rpartition(".")[2]
        for domain in _DOMAINS.values()
        for generator in domain.generators
    }
