"""VAND, also APRIL-GAN (arXiv 2305.17382): linear layers on raw taps, text by class name."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from crane.attention import GuidedAttention
from crane.backbones import Clip
from crane.backbones.towers import PositionResize
from crane.checks import PositiveFloat, PositiveInt, checked
from crane.errors import UsageError
from crane.methods.detector import Detector, Outputs, of_class
from crane.methods.vision import GuidedTaps
from crane.prompts.ensembles import EnsembleName, PromptEnsemble
from crane.scoring import image_logits, image_probability, similarity_logits, upsample
from crane.types import ANOMALOUS, Prediction


class TapFeatures(NamedTuple):
    """Frozen features of VAND."""

    global_: Float[Tensor, "B E"]
    """Unit-norm global embeddings g."""
    taps: Float[Tensor, "B M N D"]
    """Raw patches of the ViT's stream after its tapped blocks, D wide; after a guide's averages."""
    grid: tuple[int, int]
    """Rows and columns of the patches, the guide's if there is one."""


class Vand(Detector[TapFeatures, Tensor]):
    """Frozen CLIP, and one trained linear layer for each tap of its vision tower.

    Args:
        clip: The frozen towers.
        taps: Blocks, counted from 1, after which the stream is tapped.
        temperature: Divisor of cosine similarities in maps and scores.
        ensemble: Whose sentences describe the classes.
        position_resize: How position embeddings reach the image's grid.
        guide: A frozen model of patch features for D-Attn; none as published.
        guided: How its features become attention.
    """

    learned: nn.ModuleList

    @checked
    def __init__(
        self,
        clip: Clip,
        *,
        taps: Sequence[PositiveInt],
        temperature: PositiveFloat,
        ensemble: EnsembleName,
        position_resize: PositionResize,
        guide: nn.Module | None = None,
        guided: GuidedAttention | None = None,
    ) -> None:
        super().__init__()
        self.vision, self.text = clip.vision, clip.text
        self.guided = GuidedTaps(guide, guided)
        self.taps, self.temperature = check_taps(taps, len(clip.vision.blocks)), temperature
        self.ensemble = PromptEnsemble(ensemble, mean_of="unit")
        self.position_resize: PositionResize = position_resize
        width, joint = clip.vision.projection.shape
        self.learned = nn.ModuleList(nn.Linear(width, joint) for _ in taps)
        self.freeze()

    @torch.no_grad()
    def encode(self, images: Float[Tensor, "B 3 H W"]) -> TapFeatures:
        """Raw taps h_l and the global embedding of plain CLIP."""
        h = self.vision.embed(images, self.position_resize)
        tapped = []
        for number, block in enumerate(self.vision.blocks, start=1):
            h = block(h)
            if number in self.taps:
                tapped.append(h[:, 1:])
        global_ = F.normalize(self.vision.to_joint(h[:, :1]).squeeze(1), dim=-1)
        own_grid = self.vision.grid(*images.shape[-2:])
        taps, grid = self.guided(self.guided.features(images), tapped, own_grid)
        return TapFeatures(global_, torch.stack(list(taps), dim=1), grid)

    def to_arrays(
        self, features: TapFeatures
    ) -> tuple[Float[Tensor, "B E"], Float[Tensor, "B M h w D"]]:
        """Global embeddings and taps."""
        return features.global_, features.taps.unflatten(2, features.grid)

    def from_arrays(
        self,
        global_: Float[Tensor, "B E"],
        planes: Float[Tensor, "B M h w D"],
        size: tuple[int, int],
    ) -> TapFeatures:
        """Global embeddings and taps."""
        return TapFeatures(global_, planes.flatten(2, 3), (planes.shape[2], planes.shape[3]))

    def training_text(self, class_names: Sequence[str]) -> Float[Tensor, "C 2 E"]:
        """The text of testing: nothing of it is trained."""
        return self.encode_classes(class_names)

    def encode_classes(self, class_names: Sequence[str]) -> Float[Tensor, "C 2 E"]:
        """t_n and t_a of each class: the ensemble's mean."""
        return self.ensemble.encode(self.text, class_names)

    def patches(self, features: TapFeatures) -> Float[Tensor, "M B N E"]:
        """Unit-norm local embeddings: each tap, and its average, through its own linear layer."""
        layers = zip(cycle(self.learned), features.taps.unbind(dim=1), strict=False)
        return torch.stack([F.normalize(layer(tap), dim=-1) for layer, tap in layers])

    def pixels(
        self, features: TapFeatures, text: Float[Tensor, "B 2 E"], size: tuple[int, int]
    ) -> Float[Tensor, "M B 2 H W"]:
        """Probabilities of pixels in each tap's map: logits are upsampled before the softmax."""
        logits = similarity_logits(self.patches(features), text, self.temperature)
        return torch.stack(
            [
                upsample(one, features.grid, size, "bilinear_corners").softmax(dim=1)
                for one in logits
            ]
        )

    def predict(
        self,
        features: TapFeatures,
        text: Float[Tensor, "C 2 E"],
        class_id: Int[Tensor, " B"],
        size: tuple[int, int],
    ) -> Prediction:
        """The mean of the taps' maps (published: their sum, which ranks alike); CLIP's score."""
        chosen = of_class(text, class_id)
        # The softmax sees only how the texts differ; without what they share, less is rounded.
        differing = chosen - chosen.mean(dim=1, keepdim=True)
        anomaly_map = self.pixels(features, differing, size)[:, :, ANOMALOUS].mean(dim=0)
        score = image_probability(features.global_, chosen, self.temperature)
        return Prediction(score, anomaly_map)

    def training_outputs(
        self,
        features: TapFeatures,
        text: Float[Tensor, "C 2 E"],
        class_id: Int[Tensor, " B"],
        size: tuple[int, int],
    ) -> Outputs:
        """The maps of testing; the image's logits depend on nothing that is trained."""
        chosen = of_class(text, class_id)
        image = image_logits(features.global_, chosen, self.temperature)
        return Outputs(self.pixels(features, chosen, size), image)

    def load_learned(self, state_dict: Mapping[str, Tensor]) -> None:
        """Take linear layers over: ours, or the authors' `fc.0.weight` and so on."""
        super().load_learned({n.removeprefix("fc."): value for n, value in state_dict.items()})


def check_taps(taps: Sequence[int], num_blocks: int) -> tuple[int, ...]:
    """Refuse taps that a tower does not have.

    Raises:
        UsageError: Names the blocks there are.
    """
    if list(taps) != sorted(set(taps)) or not taps or taps[-1] > num_blocks:
        raise UsageError(
            f"taps must be increasing block numbers from 1 to {num_blocks}, not {list(taps)}",
            key="method.detector.taps",
        )
    return tuple(taps)
