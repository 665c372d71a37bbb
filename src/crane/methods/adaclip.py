"""AdaCLIP (arXiv 2407.15795): learned and image-dependent prompts inside both towers."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from crane.attention import GuidedAttention
from crane.backbones import Clip
from crane.backbones.towers import PositionResize
from crane.checks import (
    Fraction,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Seed,
    checked,
)
from crane.errors import UsageError
from crane.methods.detector import Detector, Outputs, on_device
from crane.methods.vand import check_taps
from crane.methods.vision import GuidedTaps
from crane.prompts.ensembles import EnsembleName, PromptEnsemble
from crane.scoring import (
    gaussian_blur,
    image_logits,
    image_probability,
    similarity_logits,
    upsample,
)
from crane.types import ANOMALOUS, Prediction


class PlainFeatures(NamedTuple):
    """Frozen features of AdaCLIP: learned prompts enter both towers, so little is left to keep."""

    global_: Float[Tensor, "B E"]
    """Embeddings of plain CLIP, not normalised."""
    tokens: Float[Tensor, "B T D"]
    """Class token and patches before the first block."""
    grid: tuple[int, int]
    """Rows and columns of the patches."""
    guide: Float[Tensor, "B C h w"] | None = None
    """A guide's features, which average the taps of the prompted tower."""


class Sentences(NamedTuple):
    """The sentences of each class as rows of token embeddings."""

    rows: list[tuple[Float[Tensor, "S L W"], Float[Tensor, "A L W"]]]
    """Token embeddings of the normal and the anomalous sentences."""
    ends: list[tuple[Int[Tensor, " S"], Int[Tensor, " A"]]]
    """Positions of their end tokens."""


class Judged(NamedTuple):
    """What the prompted towers give for a batch."""

    global_: Float[Tensor, "B E"]
    """Unit-norm embeddings of images, after their linear layer."""
    patches: Float[Tensor, "M B N E"]
    """Unit-norm patches of each tap, after their averages by a guide."""
    grid: tuple[int, int]
    """Their rows and columns, the guide's if there is one."""
    text: Float[Tensor, "B 2 E"]
    """Unit-norm t_n and t_a of each image."""


class Prompter(nn.Module):
    """Prompts of one tower: static ones, a set for each block, and dynamic ones from the image.

    Args:
        width: Width of the tower's tokens.
        joint: Width of the image's embedding, from which dynamic prompts are made.
        blocks: Blocks, counted from 0, whose input holds prompts. Published checkpoints have a
            static set for blocks before them too, and generators for a tower without any; these
            stay as they are.
        length: Prompts in a set.
        kind: `S` static, `D` dynamic, `SD` both.
        init_std: Standard deviation of static prompts before training.
    """

    def __init__(
        self, width: int, joint: int, blocks: range, length: int, kind: str, init_std: float
    ) -> None:
        super().__init__()
        self.blocks, self.length, self.width = blocks, length, width
        sets = [
            nn.Parameter(init_std * torch.randn(length, width), requires_grad=number in blocks)
            for number in range(blocks.stop)
        ]
        self.static = nn.ParameterList(sets if "S" in kind else [])
        heads = [nn.Linear(joint, width) for _ in range(length)]
        self.generators = nn.ModuleList(heads if "D" in kind else [])
        self.generators.requires_grad_(len(blocks) > 0)

    def dynamic(self, global_: Float[Tensor, "B E"]) -> Float[Tensor, "B K W"]:
        """The dynamic prompts of images; zeros without generators."""
        if not self.generators:
            return global_.new_zeros(len(global_), self.length, self.width)
        return torch.stack([generate(global_) for generate in self.generators], dim=1)

    def at(self, block: int, dynamic: Float[Tensor, "B K W"]) -> Float[Tensor, "B K W"]:
        """The prompts of a block, before they are rounded."""
        return dynamic + self.static[block] if self.static else dynamic


class AdaClip(Detector[PlainFeatures, Sentences]):
    """CLIP whose towers read learned prompts, and linear layers on the taps and the class token.

    Args:
        clip: The frozen towers.
        taps: Blocks, counted from 1, after which the vision stream is tapped.
        depth: Blocks of each tower whose input holds prompts of their own.
        length: Prompts in a set.
        branch: Towers that have prompts: `V` vision, `L` text, `VL` both.
        kind: `S` static, `D` dynamic, `SD` both.
        init_std: Standard deviation of static prompts before training.
        temperature: Divisor of cosine similarities.
        num_clusters: Clusters of the hybrid semantic fusion; 0 turns it off.
        patches_per_cluster: Of the most anomalous patches, so many for each cluster are fused.
        fusion_weight: Share of the clusters in the fused image embedding.
        blur_sigma: Standard deviation of the maps' Gaussian blur in pixels.
        ensemble: Whose sentences describe the classes.
        position_resize: How position embeddings reach the image's grid.
        seed: Of the clusters' first centres; the same for every image.
        guide: A frozen model of patch features for D-Attn; none as published.
        guided: How its features become attention.
    """

    learned: nn.ModuleDict
    not_one_graph = "it clusters the patches of each image by k-means"

    @checked
    def __init__(
        self,
        clip: Clip,
        *,
        taps: Sequence[PositiveInt],
        depth: PositiveInt,
        length: PositiveInt,
        branch: Literal["V", "L", "VL"],
        kind: Literal["S", "D", "SD"],
        init_std: NonNegativeFloat,
        temperature: PositiveFloat,
        num_clusters: NonNegativeInt,
        patches_per_cluster: PositiveInt,
        fusion_weight: Fraction,
        blur_sigma: NonNegativeFloat,
        ensemble: EnsembleName,
        position_resize: PositionResize,
        seed: Seed,
        guide: nn.Module | None = None,
        guided: GuidedAttention | None = None,
    ) -> None:
        super().__init__()
        self.vision, self.text = clip.vision, clip.text
        self.guided = GuidedTaps(guide, guided)
        self.taps, self.temperature = check_taps(taps, len(clip.vision.blocks)), temperature
        self.num_clusters, self.patches_per_cluster = num_clusters, patches_per_cluster
        self.fusion_weight, self.blur_sigma = fusion_weight, blur_sigma
        self.ensemble = PromptEnsemble(ensemble, mean_of="unit")
        self.position_resize: PositionResize = position_resize
        self.seed = seed
        width, joint = clip.vision.projection.shape
        text_width = clip.text.width
        if joint != text_width:
            raise UsageError(
                f"AdaCLIP needs a backbone whose joint width ({joint}) is its text width "
                f"({text_width})",
                key="backbone",
            )
        parts = {
            "taps": nn.ModuleList(nn.Linear(width, joint) for _ in taps),
            "image": nn.Linear(joint, joint),
        }
        for part, tower, own, first in (
            ("vision_prompts", "V", width, 0),
            ("text_prompts", "L", text_width, 1),
        ):
            blocks = range(first, depth if tower in branch else 0)
            parts[part] = Prompter(own, joint, blocks, length, kind, init_std)
        self.learned = nn.ModuleDict(parts)
        self.freeze()

    @torch.no_grad()
    def encode(self, images: Float[Tensor, "B 3 H W"]) -> PlainFeatures:
        """The input of the first block, and plain CLIP's embedding."""
        tokens = self.vision.embed(images, self.position_resize)
        h = tokens
        for block in self.vision.blocks:
            h = block(h)
        global_ = self.vision.to_joint(h[:, :1]).squeeze(1)
        grid = self.vision.grid(*images.shape[-2:])
        return PlainFeatures(global_, tokens, grid, self.guided.features(images))

    def to_arrays(
        self, features: PlainFeatures
    ) -> tuple[Float[Tensor, "B G"], Float[Tensor, "B 1 h w D"]]:
        """Global embeddings, and tokens in one column; with a guide its features in their place."""
        if features.guide is None:
            return features.global_, features.tokens[:, None, :, None]
        vectors = torch.cat([features.global_, features.tokens.flatten(1)], dim=1)
        return vectors, features.guide.movedim(1, -1).unsqueeze(1)

    def from_arrays(
        self,
        global_: Float[Tensor, "B G"],
        planes: Float[Tensor, "B 1 h w D"],
        size: tuple[int, int],
    ) -> PlainFeatures:
        """Global embeddings, tokens, and a guide's features."""
        grid, (width, joint) = self.vision.grid(*size), self.vision.projection.shape
        if self.guided.guide is None:
            return PlainFeatures(global_, planes[:, 0, :, 0], grid)
        tokens = global_[:, joint:].unflatten(1, (-1, width))
        guide = planes[:, 0].movedim(-1, 1).contiguous()
        return PlainFeatures(global_[:, :joint], tokens, grid, guide)

    def training_text(self, class_names: Sequence[str]) -> Sentences:
        """The sentences of testing: prompts enter them later."""
        return self.encode_classes(class_names)

    @torch.no_grad()
    def encode_classes(self, class_names: Sequence[str]) -> Sentences:
        """Token embeddings of each class's sentences; prompts and images come later."""
        rows, ends = [], []
        for class_name in class_names:
            padded = [self._embedded(state) for state in self.ensemble.sentences(class_name)]
            rows.append((padded[0][0], padded[1][0]))
            ends.append((padded[0][1], padded[1][1]))
        return Sentences(rows, ends)

    def _embedded(self, sentences: Sequence[str]) -> tuple[Tensor, Tensor]:
        device = self.text.positions.device
        ids = [self.text.tokenize(one) for one in sentences]
        padded = nn.utils.rnn.pad_sequence(ids, batch_first=True).to(device)
        ends = torch.tensor([len(one) - 1 for one in ids], device=device)
        return self.text.token_embedding(padded), ends

    def judge(
        self, features: PlainFeatures, text: Sentences, class_id: Int[Tensor, " B"]
    ) -> Judged:
        """Both towers with their prompts in them."""
        global_, taps, grid = self._see(features)
        pairs = [
            self._read(text, int(c), one)
            for c, one in zip(class_id.tolist(), features.global_, strict=True)
        ]
        return Judged(global_, taps, grid, torch.stack(pairs))

    def _see(self, features: PlainFeatures) -> tuple[Tensor, Tensor, tuple[int, int]]:
        """The prompted vision tower: prompts stand behind the patches, replaced block by block."""
        prompter = self._prompter("vision_prompts")
        num_tokens, h = features.tokens.shape[1], features.tokens
        dynamic = prompter.dynamic(features.global_)
        tapped = []
        for number, block in enumerate(self.vision.blocks):
            if number in prompter.blocks:
                prompts = rounded(prompter.at(number, dynamic))
                h = torch.cat([h[:, :num_tokens], prompts], dim=1)
            h = block(h)
            if number + 1 in self.taps:
                tapped.append(h[:, 1:num_tokens])
        local, grid = self.guided(features.guide, tapped, features.grid)
        layers = zip(cycle(self.learned["taps"].children()), local, strict=False)
        taps = torch.stack([F.normalize(layer(one), dim=-1) for layer, one in layers])
        joint = self.vision.to_joint(h[:, :1]).squeeze(1)
        return F.normalize(self.learned["image"](joint), dim=-1), taps, grid

    def _read(self, text: Sentences, class_id: int, image: Float[Tensor, " E"]) -> Tensor:
        """The prompted text tower for one image: prompts overwrite words 1 to K from block 1 on."""
        prompter = self._prompter("text_prompts")
        dynamic = prompter.dynamic(image.unsqueeze(0))
        pair = []
        for rows, ends in zip(text.rows[class_id], text.ends[class_id], strict=True):
            sets = [
                rounded(prompter.at(j, dynamic).expand(len(rows), -1, -1)) for j in prompter.blocks
            ]
            deep = torch.stack(sets) if sets else None
            embedded = F.normalize(self.text(rows, ends, deep), dim=-1)
            pair.append(F.normalize(embedded.mean(dim=0), dim=-1))
        return torch.stack(pair)

    def _prompter(self, name: str) -> Prompter:
        part = self.learned[name]
        assert isinstance(part, Prompter)
        return part

    def patch_logits(self, judged: Judged) -> Float[Tensor, "M B N 2"]:
        """Logits of each patch of each tap."""
        return similarity_logits(judged.patches, judged.text, self.temperature)

    def fuse(self, judged: Judged, logits: Float[Tensor, "M B N 2"]) -> Float[Tensor, "B E"]:
        """The image's embedding with the centres of its most anomalous patches in it."""
        if self.num_clusters == 0:
            return judged.global_
        anomalous = logits.mean(dim=0).softmax(dim=-1)[..., ANOMALOUS]
        centres = []
        for number, scores in enumerate(anomalous):
            top = scores.topk(min(len(scores), self.num_clusters * self.patches_per_cluster))
            chosen = judged.patches[:, number, top.indices]  # M, k, E
            labels = self.cluster(chosen.transpose(0, 1).flatten(1), number).tolist()
            members = [
                [i for i, own in enumerate(labels) if own == one] for one in sorted(set(labels))
            ]
            means = [chosen[:, on_device(rows, chosen)].mean(dim=(0, 1)) for rows in members]
            centres.append(F.normalize(torch.stack(means).mean(dim=0), dim=-1))
        weight = self.fusion_weight
        fused = weight * torch.stack(centres) + (1 - weight) * judged.global_
        return F.normalize(fused, dim=-1)

    def cluster(self, rows: Float[Tensor, "k W"], number: int) -> Int[Tensor, " k"]:
        """Labels of k-means, k-means++ with one start and the seed of the configuration."""
        try:
            from sklearn.cluster import KMeans
        except ImportError as error:
            raise UsageError(
                "AdaCLIP's fusion needs scikit-learn: pip install 'crane-ad[adaclip]', or "
                "method.detector.num_clusters=0"
            ) from error
        num_clusters = min(self.num_clusters, len(rows))
        means = KMeans(n_clusters=num_clusters, n_init=1, random_state=self.seed)
        labels = means.fit_predict(rows.detach().float().cpu().numpy())
        return torch.from_numpy(np.asarray(labels, dtype=np.int64))

    def predict(
        self,
        features: PlainFeatures,
        text: Sentences,
        class_id: Int[Tensor, " B"],
        size: tuple[int, int],
    ) -> Prediction:
        """The softmax of the taps' mean logits, blurred; the score of the fused embedding."""
        judged = self.judge(features, text, class_id)
        logits = self.patch_logits(judged)
        maps = upsample(logits.mean(dim=0), judged.grid, size, "bilinear_corners").softmax(dim=1)
        score = image_probability(self.fuse(judged, logits), judged.text, self.temperature)
        return Prediction(score, gaussian_blur(maps[:, ANOMALOUS], self.blur_sigma))

    def training_outputs(
        self,
        features: PlainFeatures,
        text: Sentences,
        class_id: Int[Tensor, " B"],
        size: tuple[int, int],
    ) -> Outputs:
        """Each tap's own map, and the logits of the fused embedding."""
        judged = self.judge(features, text, class_id)
        logits = self.patch_logits(judged)
        maps = [upsample(one, judged.grid, size, "bilinear_corners") for one in logits]
        image = image_logits(self.fuse(judged, logits), judged.text, self.temperature)
        return Outputs(torch.stack(maps).softmax(dim=2), image)

    def load_learned(self, state_dict: Mapping[str, Tensor]) -> None:
        """Take learned values over: ours, or the authors' flat state dict."""
        super().load_learned(from_authors(state_dict))


def rounded(prompts: Tensor) -> Tensor:
    """Prompts through float16 and back, as the published code has them."""
    return prompts.half().to(prompts.dtype)


AUTHORS_NAMES = {
    "patch_token_layer.head.": "taps.",
    "cls_token_layer.head.0.": "image.",
    "visual_prompter.static_prompts.": "vision_prompts.static.",
    "text_prompter.static_prompts.": "text_prompts.static.",
    "dynamic_visual_prompt_generator.head.": "vision_prompts.generators.",
    "dynamic_text_prompt_generator.head.": "text_prompts.generators.",
}
"""The authors' names of what is learned, after `clip_model.`, and ours."""


def from_authors(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict under our names, whichever it had."""
    found = {}
    for name, value in state_dict.items():
        short = name.removeprefix("clip_model.")
        for theirs, ours in AUTHORS_NAMES.items():
            if short.startswith(theirs):
                short = ours + short.removeprefix(theirs)
        found[short] = value
    return found
