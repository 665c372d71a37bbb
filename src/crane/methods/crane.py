"""Crane, and with a guide Crane+: the forward of the paper's figure 2."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from crane.backbones import TextTower
from crane.checks import Fraction, Interval, PositiveFloat, checked
from crane.methods.detector import Detector
from crane.methods.official import is_official, prompts_from_official
from crane.methods.vision import VisionEncoder
from crane.prompts import PromptLearner
from crane.scoring import Aggregate, full_precision, fuse, gaussian_blur, similarity_logits
from crane.types import ANOMALOUS, Prediction, Truth, VisionTokens

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


class Crane(Detector[VisionTokens, Tensor | None]):
    """Zero-shot anomaly detector: frozen CLIP, learned prompts.

    Only the parameters of `prompts` are trained; the towers and the guide stay frozen.

    Args:
        vision: The frozen vision side.
        text: The frozen text tower.
        prompts: The learned prompts.
        scoring: From embeddings to maps and scores.
    """

    LEARNED = "prompts"

    def __init__(
        self, vision: VisionEncoder, text: TextTower, prompts: PromptLearner, scoring: Scoring
    ) -> None:
        super().__init__()
        self.vision, self.text = vision, text
        self.prompts = prompts
        self.scoring = scoring
        self.freeze()

    def encode(self, images: Float[Tensor, "B 3 H W"]) -> VisionTokens:
        """Global and local embeddings of images (RGB in [0, 1])."""
        tokens: VisionTokens = self.vision(images)
        return tokens

    @torch.no_grad()
    def encode_classes(self, class_names: Sequence[str]) -> Float[Tensor, "1 2 E"] | None:
        """t_n and t_a of the current prompts, the same for every class.

        None if testing uses the image context: each image then has its own.
        """
        if self.prompts.context_in_testing:
            return None
        with full_precision(next(self.prompts.parameters()).device):
            return self._encode(None)

    def predict(
        self,
        features: VisionTokens,
        text: Float[Tensor, "1 2 E"] | None,
        class_id: Int[Tensor, " B"],
        size: tuple[int, int],
    ) -> Prediction:
        """Score images and their pixels from their frozen features; classes do not matter."""
        if text is None:
            text = self.encode_prompts(features, with_context=self.prompts.context_in_testing)
        return self.detect(features, text, size)

    def losses(
        self,
        loss: Callable[..., Any],
        features: VisionTokens,
        text: Tensor | None,
        truth: Truth,
        generator: torch.Generator,
    ) -> Any:
        """The losses of a batch; chance decides whether this step uses the image context."""
        return loss(
            self,
            features,
            self.encode_prompts(features, with_context=self.uses_context(generator)),
            mask=truth["mask"],
            has_mask=truth["has_mask"],
            label=truth["label"],
        )

    def uses_context(self, generator: torch.Generator) -> bool:
        """Whether a training step uses the image context."""
        draw = torch.rand((), generator=generator).item()
        return draw < self.prompts.context_in_training

    def load_learned(self, state_dict: Mapping[str, Any]) -> None:
        """Take prompts over: ours, or a published `{"prompt_learner": state dict}`."""
        if is_official(state_dict):
            state_dict = prompts_from_official(state_dict, into=self.prompts)
        self.prompts.load(state_dict)

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
