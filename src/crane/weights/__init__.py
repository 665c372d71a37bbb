"""Frozen weights: the catalogue, finding and downloading, reading and checking."""

from crane.weights.catalogue import (
    CATALOGUE,
    HUB_REPOS,
    MINI_CLIP,
    RANDOM,
    WeightFile,
    describe,
    described_prompts,
    open_clip_with_mini,
)
from crane.weights.locate import (
    HUB_FILE,
    MISSING,
    PRESENT,
    WRONG_CHECKSUM,
    WeightStatus,
    fetch_checkpoint,
    find_hub_code,
    find_weights,
    hub_code_address,
    hub_code_folder,
    is_hub_code,
    published_name,
    weight_status,
    weights_needed,
)
from crane.weights.open_clip_model import (
    check_image_size,
    check_pixels,
    load_open_clip,
    open_clip_from_state_dict,
)
from crane.weights.state_dict import (
    is_torchscript,
    load_state_dict,
    openai_geometry,
    refuse_transformers,
)
