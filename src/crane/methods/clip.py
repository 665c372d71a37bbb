"""Plain CLIP with a prompt ensemble: the row that shows what methods add. Nothing is trained."""

from collections.abc import Sequence

from jaxtyping import Float, Int
from torch import Tensor, nn

from crane.attention import GuidedAttention, SecondStream
from crane.backbones import Clip
from crane.checks import NonNegativeFloat, PositiveFloat, checked
from crane.methods.detector import Detector, of_class
from crane.methods.vision import VisionEncoder
from crane.prompts.ensembles import EnsembleName, PromptEnsemble
from crane.scoring import gaussian_blur, image_probability, similarity_logits, upsample
from crane.types import ANOMALOUS, Prediction, VisionTokens


class PlainClip(Detector[VisionTokens, Tensor]):
    """Frozen CLIP: patches and image compared with sentences about the class.

    Args:
        clip: The frozen towers.
        stream: A second stream whose patches take the place of the ViT's; `attention=clip` is the
            ViT itself.
        temperature: Divisor of cosine similarities.
        blur_sigma: Standard deviation of the maps' Gaussian blur in pixels; 0 turns it off.
        ensemble: Whose sentences describe the classes.
        guide: A frozen model of patch features for D-Attn.
        guided: How its features become attention.
    """

    @checked
    def __init__(
        self,
        clip: Clip,
        *,
        stream: SecondStream,
        temperature: PositiveFloat,
        blur_sigma: NonNegativeFloat,
        ensemble: EnsembleName,
        guide: nn.Module | None = None,
        guided: GuidedAttention | None = None,
    ) -> None:
        super().__init__()
        self.vision = VisionEncoder(clip.vision, stream, guide, guided)
        self.text = clip.text
        self.temperature, self.blur_sigma = temperature, blur_sigma
        self.ensemble = PromptEnsemble(ensemble, mean_of="unit")
        self.learned = nn.Module()
        self.freeze()

    def encode(self, images: Float[Tensor, "B 3 H W"]) -> VisionTokens:
        """The image's embedding and its patches."""
        tokens: VisionTokens = self.vision(images)
        return tokens

    def encode_classes(self, class_names: Sequence[str]) -> Float[Tensor, "C 2 E"]:
        """t_n and t_a of each class: the ensemble's mean."""
        return self.ensemble.encode(self.text, class_names)

    def predict(
        self,
        features: VisionTokens,
        text: Float[Tensor, "C 2 E"],
        class_id: Int[Tensor, " B"],
        size: tuple[int, int],
    ) -> Prediction:
        """The mean of the local embeddings' maps, blurred; the image's own score."""
        chosen = of_class(text, class_id)
        patches = similarity_logits(features.patches, chosen, self.temperature).softmax(dim=-1)
        anomalous = patches[..., ANOMALOUS].mean(dim=0)
        maps = upsample(anomalous.unsqueeze(-1), features.grid, size, "bilinear").squeeze(1)
        score = image_probability(features.global_, chosen, self.temperature)
        return Prediction(score, gaussian_blur(maps, self.blur_sigma))
