"""Crane, and with a guide Crane+: the forward of the paper's figure 2."""

from dataclasses import dataclass
from typing import Annotated

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from crane.backbones import TextTower
from crane.checks import Fraction, Interval, PositiveFloat, checked
from crane.methods.vision import VisionEncoder
from crane.prompts import PromptLearner
from crane.scoring import Aggregate, full_precision, fuse, gaussian_blur, similarity_logits
from crane.types import ANOMALOUS, Prediction, VisionTokens

BlurSigma = Annotated[float, Interval(ge=0, le=1000)]
"""Pixels. Wider blurs leave nothing of a map, and their kernels fill the memory."""


@checked
@dataclass(frozen=True)
class Scoring:
    """How embeddings become maps and scores; conf/scoring holds the values and their sources."""

    temperature: PositiveFloat
    """Divisor of the cosine similarities."""
    aggregate: Aggregate
    """From patch logits of all local embeddings to one map."""
    fusion_weight: Fraction
    """Share of the patches in the fused image embedding; 0 turns fusion off."""
    blur_sigma: BlurSigma
    """Standard deviation of the map's Gaussian blur in pixels; 0 turns it off."""


class Crane(nn.Module):
    """Zero-shot anomaly detector: frozen CLIP, learned prompts.

    Only the parameters of `prompts` are trained; the towers and the guide stay frozen.

    Args:
        vision: The frozen vision side.
        text: The frozen text tower.
        prompts: The learned prompts.
        scoring: From embeddings to maps and scores.
    """

    def __init__(
        self, vision: VisionEncoder, text: TextTower, prompts: PromptLearner, scoring: Scoring
    ) -> None:
        super().__init__()
        self.vision = vision.requires_grad_(False)
        self.text = text.requires_grad_(False)
        self.prompts = prompts
        self.scoring = scoring

    def train(self, mode: bool = True) -> "Crane":
        """Set the mode of the prompts; the frozen towers always stay in evaluation mode."""
        super().train(mode)
        self.vision.eval()
        self.text.eval()
        return self

    def forward(
        self, images: Float[Tensor, "B 3 H W"], text: Float[Tensor, "1 2 E"] | None = None
    ) -> Prediction:
        """Score images (RGB in [0, 1]) and their pixels; `text` as `static_text` gives it."""
        return self.predict(self.vision(images), (images.shape[-2], images.shape[-1]), text)

    def predict(
        self,
        tokens: VisionTokens,
        size: tuple[int, int],
        text: Float[Tensor, "1 2 E"] | None = None,
    ) -> Prediction:
        """Score images of `size` pixels and their pixels from their frozen features."""
        if text is None:
            text = self.encode_prompts(tokens, with_context=self.prompts.context_in_testing)
        return self.detect(tokens, text, size)

    @torch.no_grad()
    def static_text(self) -> Float[Tensor, "1 2 E"] | None:
        """t_n and t_a of the current prompts, encoded once for many images.

        None if testing uses the image context: each image then has its own.
        """
        if self.prompts.context_in_testing:
            return None
        with full_precision(next(self.prompts.parameters()).device):
            return self._encode(None)

    def encode_prompts(self, tokens: VisionTokens, *, with_context: bool) -> Float[Tensor, "T 2 E"]:
        """Unit-norm t_n and t_a: a pair for each image with context, one pair without."""
        return self._encode(tokens.global_ if with_context else None)

    def _encode(self, image: Float[Tensor, "B E"] | None) -> Float[Tensor, "T 2 E"]:
        rows, ends, deep = self.prompts(image)
        return F.normalize(self.text(rows, ends, deep), dim=-1).unflatten(0, (-1, 2))

    def detect(
        self, tokens: VisionTokens, text: Float[Tensor, "T 2 E"], size: tuple[int, int]
    ) -> Prediction:
        """Maps of `size` pixels and image scores, from image features and sentences."""
        logits = self.patch_logits(tokens, text)
        anomaly_map = self.scoring.aggregate(logits, tokens.grid, size)
        fused = self.fuse(tokens, logits)
        score = self.image_logits(fused, text, self.scoring.temperature).softmax(-1)[:, ANOMALOUS]
        return Prediction(score, gaussian_blur(anomaly_map, self.scoring.blur_sigma))

    def patch_logits(
        self, tokens: VisionTokens, text: Float[Tensor, "T 2 E"]
    ) -> Float[Tensor, "M B N 2"]:
        """Logits of each patch of each local embedding."""
        return similarity_logits(tokens.patches, text, self.scoring.temperature)

    def fuse(self, tokens: VisionTokens, logits: Float[Tensor, "M B N 2"]) -> Float[Tensor, "B E"]:
        """g⁺, the global embedding moved towards the anomalous patches."""
        return fuse(tokens.global_, tokens.patches, logits, self.scoring.fusion_weight)

    def image_logits(
        self, fused: Float[Tensor, "B E"], text: Float[Tensor, "T 2 E"], temperature: float
    ) -> Float[Tensor, "B 2"]:
        """Logits of whole images."""
        return similarity_logits(fused.unsqueeze(1), text, temperature).squeeze(1)
