"""WinCLIP (arXiv 2303.14814), zero-shot: windows of patches compared with text.

Nothing is trained. There is no official code: this follows the re-implementations by AnomalyCLIP's
author and by anomalib, which agree with each other.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from crane.backbones import Clip
from crane.checks import PositiveFloat, PositiveInt, checked
from crane.errors import UsageError
from crane.methods.detector import Detector, of_class
from crane.prompts.ensembles import EnsembleName, PromptEnsemble
from crane.scoring import image_probability, similarity_logits, upsample
from crane.types import ANOMALOUS, Prediction


class WindowFeatures(NamedTuple):
    """Frozen features of WinCLIP."""

    global_: Float[Tensor, "B E"]
    """Unit-norm embeddings of whole images."""
    windows: Float[Tensor, "B V E"]
    """Unit-norm embeddings of the windows of all scales, scale by scale, row-major."""
    grid: tuple[int, int]
    """Rows and columns of the patches."""


class WinClip(Detector[WindowFeatures, Tensor]):
    """Frozen CLIP on the image and on each window of k x k patches.

    Args:
        clip: The frozen towers.
        scales: Sides k of the windows in patches; the whole image is one scale more.
        temperature: Divisor of cosine similarities.
        ensemble: Whose sentences describe the classes.
        window_batch: Windows that pass the tower at a time, which bounds memory.
    """

    no_guide = "its maps come from class tokens of windows, not from patches"

    @checked
    def __init__(
        self,
        clip: Clip,
        *,
        scales: Sequence[PositiveInt],
        temperature: PositiveFloat,
        ensemble: EnsembleName,
        window_batch: PositiveInt,
    ) -> None:
        super().__init__()
        self.vision, self.text = clip.vision, clip.text
        self.scales, self.temperature = tuple(scales), temperature
        self.ensemble = PromptEnsemble(ensemble, mean_of="raw")
        self.window_batch = window_batch
        self.learned = nn.Module()
        self.freeze()

    @torch.no_grad()
    def encode(self, images: Float[Tensor, "B 3 H W"]) -> WindowFeatures:
        """Embeddings of the image and, each on its own, of its windows."""
        grid = self.vision.grid(*images.shape[-2:])
        tokens = self.vision.embed(images)  # with positions, which windows keep
        windows = self._windows(tokens, grid)
        return WindowFeatures(self._embed(tokens), torch.cat(windows, dim=1), grid)

    def to_arrays(
        self, features: WindowFeatures
    ) -> tuple[Float[Tensor, "B E"], Float[Tensor, "B 1 V 1 E"]]:
        """Embeddings of images, and of windows in one column."""
        return features.global_, features.windows[:, None, :, None]

    def from_arrays(
        self,
        global_: Float[Tensor, "B E"],
        planes: Float[Tensor, "B 1 V 1 E"],
        size: tuple[int, int],
    ) -> WindowFeatures:
        """Embeddings of images and windows."""
        return WindowFeatures(global_, planes[:, 0, :, 0], self.vision.grid(*size))

    def _windows(self, tokens: Float[Tensor, "B T D"], grid: tuple[int, int]) -> list[Tensor]:
        """Embeddings (B, windows, E), as many windows of one scale together as memory allows."""
        class_token, patches = tokens[:, :1], tokens[:, 1:]
        embedded: list[Tensor] = []
        for scale in self.scales:
            members_of_all = window_members(grid, scale, tokens.device)
            for members in members_of_all.split(self._num_at_once(tokens, len(members_of_all))):
                cut = patches[:, members]  # B, windows, k * k, D
                first = class_token.unsqueeze(1).expand(-1, len(members), -1, -1)
                rows = torch.cat([first, cut], dim=2).flatten(0, 1)
                shape = (tokens.shape[0], len(members))
                embedded.append(self._embed(rows).unflatten(0, shape))
        return embedded

    def _num_at_once(self, tokens: Float[Tensor, "B T D"], num_windows: int) -> int:
        """Windows of each image that pass the tower together; all of them in an exported graph."""
        if torch.compiler.is_exporting():
            return num_windows
        return max(1, self.window_batch // len(tokens))

    def _embed(self, rows: Float[Tensor, "R T D"]) -> Float[Tensor, "R E"]:
        """Plain CLIP on rows of tokens: the class token after all blocks."""
        for block in self.vision.blocks:
            rows = block(rows)
        return F.normalize(self.vision.to_joint(rows[:, :1]).squeeze(1), dim=-1)

    def encode_classes(self, class_names: Sequence[str]) -> Float[Tensor, "C 2 E"]:
        """t_n and t_a of each class: the ensemble's mean."""
        return self.ensemble.encode(self.text, class_names)

    def predict(
        self,
        features: WindowFeatures,
        text: Float[Tensor, "C 2 E"],
        class_id: Int[Tensor, " B"],
        size: tuple[int, int],
    ) -> Prediction:
        """Harmonic means: over the windows that hold a patch, then over the scales."""
        chosen = of_class(text, class_id)
        score = image_probability(features.global_, chosen, self.temperature)
        inverse = 1.0 / self._probability(features.windows, chosen).double()
        patches = 1.0 / score.double().unsqueeze(1)  # the whole image holds every patch
        for scale in self.scales:
            members = window_members(features.grid, scale, score.device)
            own, inverse = inverse.split([len(members), inverse.shape[1] - len(members)], dim=1)
            holds = _incidence(members, features.grid)
            patches = patches + own @ holds / holds.sum(dim=0)
        anomaly_map = (len(self.scales) + 1) / patches
        anomaly_map = anomaly_map.nan_to_num(0.0, 0.0, 0.0).to(score.dtype)
        upsampled = upsample(anomaly_map.unsqueeze(-1), features.grid, size, "bilinear")
        return Prediction(score, upsampled.squeeze(1))

    def _probability(
        self, embeddings: Float[Tensor, "B V E"], text: Float[Tensor, "B 2 E"]
    ) -> Float[Tensor, "B V"]:
        return similarity_logits(embeddings, text, self.temperature).softmax(-1)[..., ANOMALOUS]


def window_members(
    grid: tuple[int, int], scale: int, device: torch.device | None = None
) -> Int[Tensor, "V K"]:
    """Patch numbers of each window of scale x scale patches, at every place of the grid.

    Raises:
        UsageError: The grid is smaller than the window.

    >>> window_members((2, 3), 2).tolist()
    [[0, 1, 3, 4], [1, 2, 4, 5]]
    """
    if scale > min(grid):
        raise UsageError(
            f"windows of {scale} x {scale} patches do not fit {grid[0]} x {grid[1]} patches; "
            "take smaller scales or larger images",
            key="method.detector.scales",
        )
    numbers = torch.arange(grid[0] * grid[1], device=device).view(grid)
    return numbers.unfold(0, scale, 1).unfold(1, scale, 1).flatten(2).flatten(0, 1)


def _incidence(members: Int[Tensor, "V K"], grid: tuple[int, int]) -> Float[Tensor, "V N"]:
    """1 where a window holds a patch."""
    holds = torch.zeros(len(members), grid[0] * grid[1], dtype=torch.float64, device=members.device)
    return holds.scatter_(1, members, 1.0)
