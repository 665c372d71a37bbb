"""Frozen CLIP towers."""

from crane.backbones.clip_towers import Clip, clip_from_state_dict, load_backbone
from crane.backbones.text_tower import TextTower
from crane.backbones.vision_tower import VisionTower

__all__ = ["Clip", "TextTower", "VisionTower", "clip_from_state_dict", "load_backbone"]
