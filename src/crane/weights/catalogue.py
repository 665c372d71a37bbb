"""Which weight files the shipped configurations use, where they come from and how to check them.

Checksums stand here only where the publisher states them (OpenAI's addresses contain the SHA-256
of the file); the others are unknown to this project and shown as such.
"""

from dataclasses import dataclass
from pathlib import PurePosixPath

from open_clip import pretrained

from crane.weights.embedded import MINI_CLIP, MINI_GUIDE

OPEN_CLIP_HUB_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
TIMM_HUB_FILES = ("model.safetensors", "pytorch_model.bin")
RANDOM = "random"
"""The `weights` value that asks for seeded random numbers instead of a file."""


@dataclass(frozen=True)
class WeightFile:
    """One published file of frozen weights."""

    name: str
    """What a configuration calls it; for open_clip `architecture/tag`."""
    files: tuple[str, ...]
    """Paths looked for below the weights folder; the first is the one to put there by hand."""
    url: str | None
    """Address of a single file, if it has one."""
    hub_repo: str | None
    """Hugging Face repository that holds the file, if there is one."""
    licence: str
    """Licence of the weights as their publisher states it."""
    size_mb: int | None
    """Approximate size in MB (10^6 bytes), computed from the number of parameters."""
    sha256: str | None
    """Checksum of the file at `url`; None where the publisher states none."""
    options: tuple[str, ...]
    """Configuration options that use it."""
    embedded: bool = False
    """Whether the package itself carries it, in `MINI_FOLDER`."""

    @property
    def source(self) -> str:
        """Where to fetch it by hand, or that it is here already.

        >>> CATALOGUE["timm/vit_base_patch8_224.dino"].source
        'https://huggingface.co/timm/vit_base_patch8_224.dino (model.safetensors)'
        """
        if self.embedded:
            return "the package, which carries it"
        if self.url is not None:
            return self.url
        return f"https://huggingface.co/{self.hub_repo} ({PurePosixPath(self.files[0]).name})"

    @property
    def facts(self) -> str:
        """Size, licence and checksum in one line, unknown ones said to be unknown."""
        size = f"about {self.size_mb} MB" if self.size_mb else "size unknown"
        return f"{size}, licence {self.licence}, sha256 {self.sha256 or 'not published'}"


def _below(repo: str, names: tuple[str, ...]) -> tuple[str, ...]:
    folder = PurePosixPath(repo).name
    return tuple(f"{folder}/{name}" for name in names)


def _openai(architecture: str, sha256: str, file: str, size_mb: int, option: str) -> WeightFile:
    cfg = pretrained.get_pretrained_cfg(architecture, "openai")
    hub_repo = cfg["hf_hub"].rstrip("/")
    return WeightFile(
        name=f"{architecture}/openai",
        files=(file, *_below(hub_repo, OPEN_CLIP_HUB_FILES)),
        url=f"https://openaipublic.azureedge.net/clip/models/{sha256}/{file}",
        hub_repo=hub_repo,
        licence="MIT",
        size_mb=size_mb,
        sha256=sha256,
        options=(f"backbone={option}",),
    )


def _hub(
    name: str, repo: str, names: tuple[str, ...], licence: str, size_mb: int | None, option: str
) -> WeightFile:
    return WeightFile(
        name=name,
        files=_below(repo, names),
        url=None,
        hub_repo=repo,
        licence=licence,
        size_mb=size_mb,
        sha256=None,
        options=(option,) if option else (),
    )


def _embedded(name: str, file: str, size_mb: int, sha256: str, option: str) -> WeightFile:
    return WeightFile(
        name=name,
        files=(file,),
        url=None,
        hub_repo=None,
        licence="MIT",
        size_mb=size_mb,
        sha256=sha256,
        options=(option,),
        embedded=True,
    )


_ENTRIES = (
    _embedded(
        f"{MINI_CLIP}/embedded",
        "crane-mini.safetensors",
        9,
        "2c2e3ea578fb0cf246b7a1781538c4dfccf8ef5a34114fba7c169b3495077c97",
        "backbone=mini",
    ),
    _embedded(
        f"{MINI_GUIDE}/embedded",
        "crane-mini-guide.safetensors",
        2,
        "4d3e89895ad50ecf2219fbf17c9be500194c1ef9a2a2a07718b89512022a48ef",
        "guide=mini",
    ),
    _openai(
        "ViT-L-14-336",
        "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02",
        "ViT-L-14-336px.pt",
        934,
        "clip_vit_l14_336",
    ),
    _openai(
        "ViT-L-14",
        "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836",
        "ViT-L-14.pt",
        933,
        "clip_vit_l14",
    ),
    _openai(
        "ViT-B-16",
        "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f",
        "ViT-B-16.pt",
        351,
        "clip_vit_b16",
    ),
    _hub(
        "ViT-H-14/laion2b_s32b_b79k",
        "laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
        OPEN_CLIP_HUB_FILES,
        "MIT",
        3944,
        "backbone=openclip_vit_h14_laion2b",
    ),
    _hub(
        "ViT-L-14/datacomp_xl_s13b_b90k",
        "laion/CLIP-ViT-L-14-DataComp.XL-s13B-b90K",
        OPEN_CLIP_HUB_FILES,
        "MIT",
        1710,
        "backbone=openclip_vit_l14_datacomp",
    ),
    WeightFile(
        name="dinov2_vitb14_reg4_pretrain.pth",
        files=("dinov2_vitb14_reg4_pretrain.pth",),
        url="https://dl.fbaipublicfiles.com/dinov2/dinov2_vitb14/dinov2_vitb14_reg4_pretrain.pth",
        hub_repo=None,
        licence="Apache-2.0",
        size_mb=346,
        sha256=None,
        options=("guide=dinov2_vitb14_reg",),
    ),
    _hub(
        "timm/vit_base_patch14_reg4_dinov2.lvd142m",
        "timm/vit_base_patch14_reg4_dinov2.lvd142m",
        TIMM_HUB_FILES,
        "Apache-2.0",
        346,
        "guide=dinov2_vitb14_reg_timm",
    ),
    _hub(
        "timm/vit_base_patch8_224.dino",
        "timm/vit_base_patch8_224.dino",
        TIMM_HUB_FILES,
        "Apache-2.0",
        343,
        "guide=dino_vitb8",
    ),
    _hub(
        "timm/vit_base_patch16_dinov3.lvd1689m",
        "timm/vit_base_patch16_dinov3.lvd1689m",
        TIMM_HUB_FILES,
        "DINOv3 License",
        343,
        "guide=dinov3_vitb16",
    ),
    _hub(
        "timm/samvit_base_patch16.sa1b",
        "timm/samvit_base_patch16.sa1b",
        TIMM_HUB_FILES,
        "Apache-2.0",
        359,
        "guide=sam_vitb",
    ),
)

CATALOGUE = {entry.name: entry for entry in _ENTRIES}
"""The weight files of every shipped configuration, by name."""


def describe(name: str) -> WeightFile | None:
    """Look a published weight file up by name.

    Beside `CATALOGUE` this knows every `architecture/tag` of open_clip and every `timm/model.tag`
    of the Hugging Face hub, with the facts those libraries carry.

    Args:
        name: A key of `CATALOGUE`, `architecture/tag` or `timm/model.tag`.

    Returns:
        The file, or None if the name is none of these (a path, for instance).

    >>> describe("ViT-B-32/laion2b_s34b_b79k").hub_repo
    'laion/CLIP-ViT-B-32-laion2B-s34B-b79K'
    >>> describe("my_weights.pt") is None
    True
    """
    if name in CATALOGUE:
        return CATALOGUE[name]
    publisher, _, rest = name.partition("/")
    if publisher == "timm" and rest and "/" not in rest:
        return _hub(name, name, TIMM_HUB_FILES, "see its page", None, "")
    cfg = pretrained.get_pretrained_cfg(publisher, rest) if rest else {}
    return _from_open_clip(name, cfg) if cfg else None


def _from_open_clip(name: str, cfg: dict[str, object]) -> WeightFile:
    url, location = str(cfg.get("url") or ""), str(cfg.get("hf_hub") or "")
    # open_clip writes "owner/repo/" for the usual file names and "owner/repo/file" for another.
    repo, _, file = location.rpartition("/")
    hub_files = _below(repo, (file,) if file else OPEN_CLIP_HUB_FILES) if repo else ()
    url_parts = PurePosixPath(url).parts
    return WeightFile(
        name=name,
        files=((url_parts[-1],) if url else ()) + hub_files,
        url=url or None,
        hub_repo=repo or None,
        licence="see its page",
        size_mb=None,
        sha256=url_parts[-2] if "openaipublic" in url else None,
        options=(),
    )
