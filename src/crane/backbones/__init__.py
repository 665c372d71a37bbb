"""Frozen CLIP towers."""

from crane.backbones.clip import Clip, clip_from_state_dict, load_backbone
from crane.backbones.text import TextTower
from crane.backbones.vision import VisionTower

__all__ = ["Clip", "TextTower", "VisionTower", "clip_from_state_dict", "load_backbone"]
