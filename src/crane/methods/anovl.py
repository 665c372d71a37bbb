"""AnoVL (arXiv 2308.15939): a v-v stream, many views, and an adapter fitted to each test image."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from crane.attention import GuidedAttention, SumOfSelfCorrelations
from crane.backbones import Clip
from crane.checks import NonNegativeFloat, NonNegativeInt, PositiveFloat, Seed, checked
from crane.methods.detector import Detector, of_class
from crane.methods.vision import GuidedTaps
from crane.prompts.ensembles import EnsembleName, PromptEnsemble
from crane.scoring import upsample
from crane.types import ANOMALOUS, NORMAL, Prediction


class ViewFeatures(NamedTuple):
    """Frozen features of AnoVL."""

    views: Float[Tensor, "B V E"]
    """Unit-norm embeddings of the views of each image, the image itself first."""
    patches: Float[Tensor, "B N E"]
    """Patches of the v-v stream in the joint space, not normalised; after a guide's averages."""
    grid: tuple[int, int]
    """Rows and columns of the patches, the guide's if there is one."""


class ClassText(NamedTuple):
    """What AnoVL needs to know of each class."""

    pairs: Float[Tensor, "C 2 E"]
    """Unit-norm t_n and t_a."""
    sentences: Float[Tensor, "C S E"]
    """All sentences, unit-norm, the normal ones first: the adapter's rows."""


class AnoVl(Detector[ViewFeatures, ClassText]):
    """Frozen CLIP; an adapter is fitted to the patches of each image at test time.

    Args:
        clip: The frozen towers.
        ensemble: Whose sentences describe the classes.
        num_steps: Steps of the adapter's optimiser on each image; 0 leaves adaptation out.
        learning_rate: Of AdamW.
        weight_decay: Of AdamW.
        noise_std: Standard deviation of the noise added to patches that shall look anomalous.
        carry_optimizer: Whether AdamW's state runs on over the images of a class, as in the
            published code, where results depend on the order of images.
        seed: Of the adapter's first weights and of the noise, together with the image's number.
        guide: A frozen model of patch features for D-Attn; none as published.
        guided: How its features become attention.
    """

    not_one_graph = "it fits an adapter to each image by gradient descent"

    @checked
    def __init__(
        self,
        clip: Clip,
        *,
        ensemble: EnsembleName,
        num_steps: NonNegativeInt,
        learning_rate: PositiveFloat,
        weight_decay: NonNegativeFloat,
        noise_std: NonNegativeFloat,
        carry_optimizer: bool,
        seed: Seed,
        guide: nn.Module | None = None,
        guided: GuidedAttention | None = None,
    ) -> None:
        super().__init__()
        self.vision, self.text = clip.vision, clip.text
        self.guided = GuidedTaps(guide, guided)
        self.ensemble = PromptEnsemble(ensemble, mean_of="raw")
        self.num_steps, self.learning_rate = num_steps, learning_rate
        self.weight_decay, self.noise_std = weight_decay, noise_std
        self.carry_optimizer, self.seed = carry_optimizer, seed
        self.correlate = SumOfSelfCorrelations(of=["v"])
        self.learned = nn.Module()
        self._carried: dict[int, _Adapter] = {}
        self.freeze()

    @torch.no_grad()
    def encode(self, images: Float[Tensor, "B 3 H W"]) -> ViewFeatures:
        """Embeddings of all views, and the v-v stream's patches of the image itself."""
        normalised = (images - self.vision.mean) / self.vision.std
        views = []
        for number, view in enumerate(views_of(normalised)):
            h = self.vision.embed(view * self.vision.std + self.vision.mean)
            z = h
            for block in self.vision.blocks:
                if number == 0:  # z_l = z_{l-1} + Proj(A(v) v), without an MLP
                    z = z + block.project(self.correlate(*block.qkv(h)))
                h = block(h)
            if number == 0:
                own_grid = self.vision.grid(*images.shape[-2:])
                local, grid = self.guided(self.guided.features(images), [z[:, 1:]], own_grid)
                patches = torch.cat([self.vision.to_joint(one) for one in local], dim=1)
            views.append(F.normalize(self.vision.to_joint(h[:, :1]).squeeze(1), dim=-1))
        return ViewFeatures(torch.stack(views, dim=1), patches, grid)

    def to_arrays(
        self, features: ViewFeatures
    ) -> tuple[Float[Tensor, "B G"], Float[Tensor, "B M h w E"]]:
        """Views side by side, and patches."""
        return features.views.flatten(1), features.patches.unflatten(1, (-1, *features.grid))

    def from_arrays(
        self,
        global_: Float[Tensor, "B G"],
        planes: Float[Tensor, "B M h w E"],
        size: tuple[int, int],
    ) -> ViewFeatures:
        """Views and patches."""
        views = global_.unflatten(1, (-1, planes.shape[-1]))
        return ViewFeatures(views, planes.flatten(1, 3), (planes.shape[2], planes.shape[3]))

    def encode_classes(self, class_names: Sequence[str]) -> ClassText:
        """The pair and all sentences of each class; the adapters' carried state begins anew."""
        self._carried.clear()
        rows = [
            F.normalize(self.text.encode([*normal, *anomalous]), dim=-1)
            for normal, anomalous in map(self.ensemble.sentences, class_names)
        ]
        return ClassText(self.ensemble.encode(self.text, class_names), torch.stack(rows))

    def predict(
        self,
        features: ViewFeatures,
        text: ClassText,
        class_id: Int[Tensor, " B"],
        size: tuple[int, int],
    ) -> Prediction:
        """Scores: the mean over views. Maps: the adapted patches, smoothed over 3 x 3.

        Args:
            features: What `encode` gave.
            text: What `encode_classes` gave.
            class_id: The class of each image.
            size: Height and width of the maps in pixels.
        """
        pairs = of_class(text.pairs, class_id)
        views = (features.views @ pairs.transpose(1, 2)).softmax(dim=-1)
        score = views[..., ANOMALOUS].mean(dim=1)
        probabilities = torch.stack(
            [
                self.adapt(patches, text.sentences[c], text.pairs[c], c, number)
                for number, (patches, c) in enumerate(
                    zip(features.patches, class_id.tolist(), strict=True)
                )
            ]
        )
        planes = probabilities.unflatten(1, (-1, *features.grid)).mean(dim=1, keepdim=True)
        smoothed = F.avg_pool2d(F.pad(planes, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
        maps = upsample(
            smoothed.flatten(2).transpose(1, 2), features.grid, size, "bilinear_corners"
        )
        return Prediction(score, maps.squeeze(1))

    def adapt(
        self,
        patches: Float[Tensor, "N E"],
        sentences: Float[Tensor, "S E"],
        pair: Float[Tensor, "2 E"],
        class_id: int,
        number: int,
    ) -> Float[Tensor, " N"]:
        """Fit an adapter to an image; the anomalous probability of its patches afterwards.

        Every image gets the same random numbers, so that its batch and order change nothing;
        `number`, its place in the batch, is for whoever overrides where they come from.
        """
        with torch.inference_mode(False), torch.enable_grad():
            x, rows, t = patches.clone(), sentences.clone(), pair.clone()
            generator = torch.Generator().manual_seed(self.seed)
            adapter = self._adapter(class_id, x, rows)
            adapter.draw(*self.first_weights(rows, generator, number))
            for step in range(self.num_steps):
                noise = self.noise(x, generator, number, step)
                clean = self._probabilities(adapter(x, rows), t)
                noisy = self._probabilities(adapter(x + noise, rows), t)
                entropy = -(clean * clean.log()).sum(dim=-1).mean()
                contrast = -(noisy[:, ANOMALOUS].log() + clean[:, NORMAL].log()).mean()
                loss = entropy + 0.5 * contrast
                self.note_loss(loss)
                adapter.optimizer.zero_grad()
                loss.backward()
                adapter.optimizer.step()
            return self._probabilities(adapter(x, rows), t)[:, ANOMALOUS].detach()

    def _adapter(self, class_id: int, x: Tensor, rows: Tensor) -> "_Adapter":
        if not self.carry_optimizer or class_id not in self._carried:
            made = _Adapter(x, len(rows), self.learning_rate, self.weight_decay)
            if not self.carry_optimizer:
                return made
            self._carried[class_id] = made
        return self._carried[class_id]

    def first_weights(
        self, sentences: Float[Tensor, "S E"], generator: torch.Generator, number: int
    ) -> tuple[Float[Tensor, "S E"], Float[Tensor, " S"]]:
        """Weight and bias of an adapter before its first step, as torch's Linear draws them."""
        bound = 1 / math.sqrt(sentences.shape[1])
        weight = torch.empty(sentences.shape).uniform_(-bound, bound, generator=generator)
        bias = torch.empty(len(sentences)).uniform_(-bound, bound, generator=generator)
        return weight, bias

    def noise(
        self, patches: Float[Tensor, "N E"], generator: torch.Generator, number: int, step: int
    ) -> Float[Tensor, "N E"]:
        """The noise of a step."""
        drawn = torch.randn(patches.shape, generator=generator) * self.noise_std
        return drawn.to(patches)

    def note_loss(self, loss: Tensor) -> None:
        """Called with the loss of each step, for whoever wants to watch it."""

    @staticmethod
    def _probabilities(
        adapted: Float[Tensor, "N E"], pair: Float[Tensor, "2 E"]
    ) -> Float[Tensor, "N 2"]:
        """P(y) = softmax(unit(y) · t), without a temperature."""
        return (F.normalize(adapted, dim=-1) @ pair.T).softmax(dim=-1)


class _Adapter:
    """f(x) = x / 2 + tanh(W unit(x) + b) T / 2, with its optimiser."""

    def __init__(self, like: Tensor, num_rows: int, rate: float, decay: float) -> None:
        self.weight = nn.Parameter(like.new_zeros(num_rows, like.shape[1]))
        self.bias = nn.Parameter(like.new_zeros(num_rows))
        self.optimizer = torch.optim.AdamW([self.weight, self.bias], lr=rate, weight_decay=decay)

    @torch.no_grad()
    def draw(self, weight: Tensor, bias: Tensor) -> None:
        self.weight.copy_(weight)
        self.bias.copy_(bias)

    def __call__(self, x: Float[Tensor, "N E"], rows: Float[Tensor, "S E"]) -> Tensor:
        return (
            0.5 * x
            + 0.5 * torch.tanh(F.linear(F.normalize(x, dim=-1), self.weight, self.bias)) @ rows
        )


def views_of(images: Float[Tensor, "B 3 H W"]) -> list[Float[Tensor, "B 3 H W"]]:
    """The 22 views of normalised images, in the published order.

    Itself; rotations by -45 to 45 degrees in eighths of 90; shifts by a fifth and a tenth of half
    the size; the mirror image; grey; quarter turns.
    """
    views = [images]
    for k in (-4, -3, -2, -1, 1, 2, 3, 4):
        angle = k * math.pi / 16
        cos, sin = math.cos(angle), math.sin(angle)
        views.append(_warped(images, [[cos, -sin, 0.0], [sin, cos, 0.0]]))
    for d in (0.2, 0.1):
        for a, b in ((d, d), (-d, d), (-d, -d), (d, -d)):
            views.append(_warped(images, [[1.0, 0.0, a], [0.0, 1.0, b]]))
    views.append(images.flip(-1))
    grey = images.new_tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    views.append((images * grey).sum(dim=1, keepdim=True).expand_as(images))
    views += [images.rot90(k, (-2, -1)) for k in (1, 2, 3)]
    return views


def _warped(images: Float[Tensor, "B 3 H W"], matrix: list[list[float]]) -> Tensor:
    theta = images.new_tensor(matrix).expand(len(images), -1, -1)
    grid = F.affine_grid(theta, list(images.shape), align_corners=True)
    return F.grid_sample(
        images, grid, mode="bilinear", padding_mode="reflection", align_corners=True
    )
