"""Guides: frozen models whose patch features tell D-Attn which patches belong together."""

from crane.guides.guide import FITS, Guide
from crane.guides.pretrained import HubGuide, TimmGuide

__all__ = ["FITS", "Guide", "HubGuide", "TimmGuide"]
