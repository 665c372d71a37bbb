"""Guides: frozen models whose patch features tell D-Attn which patches belong together."""

from crane.guides.guide import FITS, Guide
from crane.guides.hub_guide import HubGuide
from crane.guides.timm_guide import TimmGuide

__all__ = ["FITS", "Guide", "HubGuide", "TimmGuide"]
