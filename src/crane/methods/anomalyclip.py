"""AnomalyCLIP (arXiv 2310.18961): learned, object-agnostic prompts and a v-v stream beside CLIP."""

from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from crane.attention import GuidedAttention, SecondStream
from crane.backbones import Clip
from crane.checks import NonNegativeFloat, PositiveFloat, PositiveInt, checked
from crane.methods.detector import Detector, Outputs
from crane.methods.official import is_official, prompts_from_official
from crane.methods.vand import check_taps
from crane.methods.vision import VisionEncoder
from crane.prompts import PromptLearner
from crane.scoring import (
    full_precision,
    gaussian_blur,
    image_logits,
    image_probability,
    similarity_logits,
    upsample,
)
from crane.types import ANOMALOUS, Prediction, VisionTokens


class AnomalyClip(Detector[VisionTokens, Tensor]):
    """Frozen CLIP with a second stream of value correlations, and learned static prompts.

    Args:
        clip: The frozen towers.
        stream: The second stream, `attention=vv` over blocks 6 to 24 as published.
        prompts: From a text tower to the prompts; without image context.
        taps: Blocks, counted from 1, whose patches are compared with the text; the last one is
            among them, and None is the last one alone.
        temperature: Divisor of cosine similarities in maps, scores and the image loss.
        blur_sigma: Standard deviation of the maps' Gaussian blur in pixels; 0 turns it off.
        norm_global: Whether LN_post applies to the image's embedding; false as published.
        guide: A frozen model of patch features for D-Attn; none as published.
        guided: How its features become attention.
    """

    learned: PromptLearner

    @checked
    def __init__(
        self,
        clip: Clip,
        *,
        stream: SecondStream,
        prompts: Callable[..., PromptLearner],
        taps: Sequence[PositiveInt] | None,
        temperature: PositiveFloat,
        blur_sigma: NonNegativeFloat,
        norm_global: bool,
        guide: nn.Module | None = None,
        guided: GuidedAttention | None = None,
    ) -> None:
        super().__init__()
        tapped = check_taps(taps, len(clip.vision.blocks)) if taps is not None else ()
        self.vision = VisionEncoder(
            clip.vision, stream, guide, guided, taps=tapped, norm_global=norm_global
        )
        self.text = clip.text
        self.learned = prompts(clip.text)
        self.temperature, self.blur_sigma = temperature, blur_sigma
        self.freeze()

    def encode(self, images: Float[Tensor, "B 3 H W"]) -> VisionTokens:
        """The image's embedding and the patches of the second stream."""
        tokens: VisionTokens = self.vision(images)
        return tokens

    @torch.no_grad()
    def encode_classes(self, class_names: Sequence[str]) -> Float[Tensor, "1 2 E"]:
        """t_n and t_a, the same for every class."""
        with full_precision(next(self.learned.parameters()).device):
            return self._encode_prompts()

    def _encode_prompts(self) -> Float[Tensor, "1 2 E"]:
        rows, ends, deep = self.learned(None)
        return F.normalize(self.text(rows, ends, deep), dim=-1).unflatten(0, (-1, 2))

    def pixels(
        self, tokens: VisionTokens, text: Float[Tensor, "1 2 E"], size: tuple[int, int]
    ) -> Float[Tensor, "M B 2 H W"]:
        """Probabilities of pixels in each tap's map: the softmax comes before the upsampling."""
        patches = similarity_logits(tokens.patches, text, self.temperature).softmax(dim=-1)
        return torch.stack([upsample(one, tokens.grid, size, "bilinear") for one in patches])

    def predict(
        self,
        features: VisionTokens,
        text: Float[Tensor, "1 2 E"],
        class_id: Int[Tensor, " B"],
        size: tuple[int, int],
    ) -> Prediction:
        """The mean of the taps' maps (published: their sum, which ranks alike), blurred."""
        anomaly_map = self.pixels(features, text, size)[:, :, ANOMALOUS].mean(dim=0)
        score = image_probability(features.global_, text, self.temperature)
        return Prediction(score, gaussian_blur(anomaly_map, self.blur_sigma))

    def training_outputs(
        self,
        features: VisionTokens,
        text: object,
        class_id: Int[Tensor, " B"],
        size: tuple[int, int],
    ) -> Outputs:
        """The maps of testing and the image's logits, with gradients to the prompts."""
        pair = self._encode_prompts()
        image = image_logits(features.global_, pair, self.temperature)
        return Outputs(self.pixels(features, pair, size), image)

    def load_learned(self, state_dict: Mapping[str, Tensor]) -> None:
        """Take prompts over: ours, or a published `{"prompt_learner": state dict}`."""
        if is_official(state_dict):
            state_dict = prompts_from_official(state_dict, into=self.learned)
        self.learned.load(state_dict)
