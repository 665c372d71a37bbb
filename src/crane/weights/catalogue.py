"""The weight files of the shipped configurations, their sources and their checksums.

A checksum is given only if the publisher states it (OpenAI's addresses contain the SHA-256 of the
file); the others are shown as not published. The package carries a small CLIP and a small guide,
pretrained on drawings.
"""

import json
import tempfile
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path, PurePosixPath
from typing import Any

from crane.named_prompts import EPOCH, MINI, published_files

MINI_FOLDER = Path(str(files("crane"))) / "weights" / "mini"
"""Weights, configuration, vocabulary and model card of the embedded models."""
MINI_CLIP = "crane-mini"
"""The small CLIP's name among open_clip's models."""
MINI_PROMPTS = "crane-mini-prompts.safetensors"
"""Prompts of Crane for the small CLIP, trained as in `crane demo`."""
MINI_GUIDE = "crane-mini-guide"
"""The small guide's name among the weight files."""


@cache
def open_clip_with_mini() -> Any:
    """Import open_clip and register the small CLIP in it, so that its name works like any other.

    open_clip imports torchvision and timm, which takes seconds: import it through this function,
    where it is used.

    >>> open_clip_with_mini().get_tokenizer("crane-mini").decode([598])
    'damaged '
    """
    import open_clip

    config = json.loads((MINI_FOLDER / f"{MINI_CLIP}.json").read_text())
    kwargs = config["text_cfg"]["tokenizer_kwargs"]
    kwargs["bpe_path"] = str(MINI_FOLDER / kwargs["bpe_path"])  # open_clip takes whole paths only
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"{MINI_CLIP}.json")
        path.write_text(json.dumps(config))
        open_clip.add_model_config(path)
    return open_clip


OPEN_CLIP_HUB_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
OPEN_CLIP_RELEASES = "https://github.com/mlfoundations/open_clip/releases/download/v0.2-weights"
TIMM_HUB_FILES = ("model.safetensors", "pytorch_model.bin")
PROMPTS_SOURCE = (
    "https://raw.githubusercontent.com/AlirezaSalehy/Crane/"
    "39181f9f718a28c1b06b5aa72bfb81e74b9a2cc3/checkpoints"
)
"""Where the authors keep them, at a commit (MIT)."""
RANDOM = "random"
"""The `weights` value that asks for seeded random numbers instead of a file."""
HUB_REPOS = ("facebookresearch/dinov2:b8931f7bf91576930313be2c6d6af376033b35f0",)
"""Repositories of torch.hub, each at a commit, whose code the shipped guides run. A checkpoint may
choose these, and no others."""


@dataclass(frozen=True)
class WeightFile:
    """One published file of frozen weights."""

    name: str
    """Its name in a configuration; for open_clip `architecture/tag`."""
    files: tuple[str, ...]
    """Paths below the weights folder; the first is the one to use for a manual download."""
    licence: str
    """Licence of the weights as their publisher states it."""
    url: str | None = None
    """Address of a single file, if it has one."""
    hub_repo: str | None = None
    """Hugging Face repository that holds the file, if there is one."""
    size_mb: int | None = None
    """Approximate size in MB (10^6 bytes), computed from the number of parameters."""
    sha256: str | None = None
    """Checksum of the file at `url`; None if the publisher states none."""
    options: tuple[str, ...] = ()
    """Configuration options that use it."""
    embedded: bool = False
    """Whether the package itself carries it, in `MINI_FOLDER`."""

    @property
    def source(self) -> str:
        """Where to download it manually, or that the package carries it.

        >>> CATALOGUE["timm/vit_base_patch8_224.dino"].source
        'https://huggingface.co/timm/vit_base_patch8_224.dino (model.safetensors)'
        """
        if self.embedded:
            return "the package itself"
        if self.url is not None:
            return self.url
        return f"https://huggingface.co/{self.hub_repo} ({PurePosixPath(self.files[0]).name})"

    @property
    def facts(self) -> str:
        """Size, licence and checksum in one line; says so if one is unknown."""
        return f"{self.size}, licence {self.licence}, sha256 {self.sha256 or 'not published'}"

    @property
    def size(self) -> str:
        """Approximate size; says so if it is unknown."""
        return f"about {self.size_mb} MB" if self.size_mb else "size unknown"


def _below(repo: str, names: tuple[str, ...]) -> tuple[str, ...]:
    folder = PurePosixPath(repo).name
    return tuple(f"{folder}/{name}" for name in names)


def _embedded(name: str, file: str, size_mb: int, sha256: str, option: str) -> WeightFile:
    return WeightFile(
        f"{name}/embedded",
        (file,),
        "MIT",
        size_mb=size_mb,
        sha256=sha256,
        options=(option,),
        embedded=True,
    )


def _openai(
    architecture: str, file: str, hub_repo: str, size_mb: int, sha256: str, option: str
) -> WeightFile:
    return WeightFile(
        f"{architecture}/openai",
        (file, *_below(hub_repo, OPEN_CLIP_HUB_FILES)),
        "MIT",
        url=f"https://openaipublic.azureedge.net/clip/models/{sha256}/{file}",
        hub_repo=hub_repo,
        size_mb=size_mb,
        sha256=sha256,
        options=(option,),
    )


def _open_clip(name: str, repo: str, size_mb: int, option: str) -> WeightFile:
    files = _below(repo, OPEN_CLIP_HUB_FILES)
    return WeightFile(name, files, "MIT", hub_repo=repo, size_mb=size_mb, options=(option,))


def _timm(
    name: str, licence: str = "see its page", size_mb: int | None = None, *options: str
) -> WeightFile:
    files = _below(name, TIMM_HUB_FILES)
    return WeightFile(name, files, licence, hub_repo=name, size_mb=size_mb, options=options)


_ENTRIES = (
    _embedded(
        *(MINI_CLIP, "crane-mini.safetensors", 9),
        *("2c2e3ea578fb0cf246b7a1781538c4dfccf8ef5a34114fba7c169b3495077c97", "backbone=mini"),
    ),
    _embedded(
        *(MINI_GUIDE, "crane-mini-guide.safetensors", 2),
        *("a980ca3325c0ef69e67b1d7ff54a11dcad482f0cc2cc50b958006a4b03cdeaea", "guide=mini"),
    ),
    _openai(
        *("ViT-L-14-336", "ViT-L-14-336px.pt", "timm/vit_large_patch14_clip_336.openai", 934),
        "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02",
        "backbone=clip_vit_l14_336",
    ),
    _openai(
        *("ViT-L-14", "ViT-L-14.pt", "timm/vit_large_patch14_clip_224.openai", 933),
        "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836",
        "backbone=clip_vit_l14",
    ),
    _openai(
        *("ViT-B-16", "ViT-B-16.pt", "timm/vit_base_patch16_clip_224.openai", 351),
        "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f",
        "backbone=clip_vit_b16",
    ),
    _open_clip(
        *("ViT-H-14/laion2b_s32b_b79k", "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"),
        *(3944, "backbone=openclip_vit_h14_laion2b"),
    ),
    _open_clip(
        *("ViT-L-14/datacomp_xl_s13b_b90k", "laion/CLIP-ViT-L-14-DataComp.XL-s13B-b90K"),
        *(1710, "backbone=openclip_vit_l14_datacomp"),
    ),
    *(
        WeightFile(
            f"ViT-B-16-plus-240/laion400m_{epoch}",
            (f"vit_b_16_plus_240-laion400m_{epoch}-{start}.pt",),
            "MIT",
            url=f"{OPEN_CLIP_RELEASES}/vit_b_16_plus_240-laion400m_{epoch}-{start}.pt",
            size_mb=834,
            options=(f"backbone=openclip_vit_b16_plus_240{option}",),
        )
        for epoch, start, option in (("e31", "8fb26589", ""), ("e32", "699c4b84", "_e32"))
    ),
    WeightFile(
        "dinov2_vitb14_reg4_pretrain.pth",
        ("dinov2_vitb14_reg4_pretrain.pth",),
        "Apache-2.0",
        url="https://dl.fbaipublicfiles.com/dinov2/dinov2_vitb14/dinov2_vitb14_reg4_pretrain.pth",
        size_mb=346,
        options=("guide=dinov2_vitb14_reg",),
    ),
    _timm(
        *("timm/vit_base_patch14_reg4_dinov2.lvd142m", "Apache-2.0", 346),
        "guide=dinov2_vitb14_reg_timm",
    ),
    _timm("timm/vit_base_patch8_224.dino", "Apache-2.0", 343, "guide=dino_vitb8"),
    _timm(*("timm/vit_base_patch16_dinov3.lvd1689m", "DINOv3 License", 343), "guide=dinov3_vitb16"),
    _timm("timm/samvit_base_patch16.sa1b", "Apache-2.0", 359, "guide=sam_vitb"),
)

CATALOGUE = {entry.name: entry for entry in _ENTRIES}
"""The weight files of every shipped configuration, by name."""


def describe(name: str) -> WeightFile | None:
    """Look up a published weight file by name.

    Beside `CATALOGUE` this knows every `architecture/tag` of open_clip and every `timm/model.tag`
    of the Hugging Face hub, as far as those libraries describe them.

    Args:
        name: A key of `CATALOGUE`, `architecture/tag` or `timm/model.tag`.

    Returns:
        The file, or None for any other name (a path, for instance).

    >>> describe("ViT-B-32/laion2b_s34b_b79k").hub_repo
    'laion/CLIP-ViT-B-32-laion2B-s34B-b79K'
    >>> describe("my_weights.pt") is None
    True
    """
    if name in CATALOGUE:
        return CATALOGUE[name]
    publisher, _, rest = name.partition("/")
    if not publisher or not rest:
        return None
    if publisher == "timm" and "/" not in rest:
        return _timm(name)
    cfg = open_clip_with_mini().get_pretrained_cfg(publisher, rest)
    return _from_open_clip(name, cfg) if cfg else None


def _from_open_clip(name: str, cfg: dict[str, Any]) -> WeightFile:
    url, location = str(cfg.get("url") or ""), str(cfg.get("hf_hub") or "")
    # open_clip writes "owner/repo/" for the usual file names and "owner/repo/file" for another.
    repo, _, file = location.rpartition("/")
    hub_files = _below(repo, (file,) if file else OPEN_CLIP_HUB_FILES) if repo else ()
    url_parts = PurePosixPath(url).parts
    return WeightFile(
        name,
        ((url_parts[-1],) if url else ()) + hub_files,
        "see its page",
        url=url or None,
        hub_repo=repo or None,
        sha256=url_parts[-2] if "openaipublic" in url else None,
    )


def described_prompts(name: str) -> WeightFile | None:
    """Look up named prompts; None for any other text.

    Args:
        name: A name, with `@EPOCH` unless the last is meant.

    >>> described_prompts("crane_plus_visa").name, described_prompts("crane_plus_visa@1").name
    ('crane_plus_visa@5', 'crane_plus_visa@1')
    >>> described_prompts("epoch_5.pth") is None
    True
    """
    option = (f"checkpoint={name}",)
    if name == MINI:
        return WeightFile(name, (MINI_PROMPTS,), "MIT", size_mb=1, options=option, embedded=True)
    whole = name if "@" in name else f"{name}@{EPOCH}"
    found = published_files().get(whole)
    if found is None:
        return None
    return WeightFile(
        *(whole, (found.file,), "MIT", f"{PROMPTS_SOURCE}/{found.file}"),
        size_mb=max(1, round(found.num_bytes / 1e6)),
        sha256=found.sha256,
        options=option,
    )
