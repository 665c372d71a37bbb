"""The arithmetic of each method, from its configuration: products, numbers moved, text, cache.

A product of (a, b) and (b, c) is 2abc operations, as torch's counter has it. Softmaxes, norms,
activations and interpolations are left out. Tests compare everything here with what models do.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

from open_clip import get_model_config, get_tokenizer

from crane.config import plain
from crane.prompts.ensembles import PromptEnsemble

NUM_VIEWS = 22
"""Views of AnoVL; see `crane.methods.anovl.views_of`."""
GUIDES = {"dinov2_vitb14_reg": (12, 768, 14, 5)}
"""Blocks, width, patch size and tokens besides patches of the guides that are not timm's."""


@dataclass(frozen=True)
class Work:
    """Products of matrices."""

    linear: int = 0
    """Operations of products with weights."""
    pairs: int = 0
    """Operations of products of two activations."""
    moved: int = 0
    """Activations that are read and written."""
    weights: int = 0
    """Weights that are read, once for all images of a batch."""

    @property
    def flops(self) -> int:
        """All operations."""
        return self.linear + self.pairs

    def __add__(self, other: "Work") -> "Work":
        return Work(
            self.linear + other.linear,
            self.pairs + other.pairs,
            self.moved + other.moved,
            self.weights + other.weights,
        )

    def each(self, num: int) -> "Work":
        """The same for several inputs, with the same weights."""
        return Work(num * self.linear, num * self.pairs, num * self.moved, self.weights)

    def stacked(self, num: int) -> "Work":
        """The same for several layers, each with weights of its own."""
        return Work(*(num * one for one in (self.linear, self.pairs, self.moved, self.weights)))

    @property
    def backward(self) -> "Work":
        """Gradients of the inputs of frozen layers; a product of activations has two inputs."""
        return Work(self.linear, 2 * self.pairs, 2 * self.moved, self.weights)


NONE = Work()


def linear(rows: int, inner: int, columns: int) -> Work:
    """A layer of `inner` to `columns` features."""
    product = rows * inner * columns
    return Work(linear=2 * product, moved=rows * (inner + columns), weights=inner * columns)


def pair(rows: int, inner: int, columns: int) -> Work:
    """The product of two activations, (rows, inner) and (inner, columns)."""
    moved = rows * inner + inner * columns + rows * columns
    return Work(pairs=2 * rows * inner * columns, moved=moved)


def attend(queries: int, keys: int, width: int) -> Work:
    """Attention of all heads, whose weights of queries and keys never leave the chip."""
    return Work(pairs=4 * queries * keys * width, moved=2 * (queries + keys) * width)


def block(tokens: int, width: int, attending: int | None = None, kept: int | None = None) -> Work:
    """A transformer block with an MLP four times as wide.

    Args:
        tokens: Tokens in.
        width: Their width.
        attending: Tokens whose attention is computed; all unless given.
        kept: Tokens that pass the MLP; all unless given.
    """
    attending = tokens if attending is None else attending
    kept = tokens if kept is None else kept
    attention = linear(tokens, width, 3 * width) + attend(attending, tokens, width)
    mlp = linear(kept, width, 4 * width) + linear(kept, 4 * width, width)
    return attention + linear(attending, width, width) + mlp


class Sizes(NamedTuple):
    """Sizes of a backbone and its images."""

    depth: int
    width: int
    """D of the vision tower."""
    joint: int
    """E."""
    patches: int
    """N of one image."""
    patch: int
    pixels: int
    """Height and width of an image."""
    text_depth: int
    text_width: int

    @property
    def side(self) -> int:
        """Rows of patches."""
        return self.pixels // self.patch

    def embed(self) -> Work:
        """The convolution that makes patches."""
        return linear(self.patches, 3 * self.patch**2, self.width)

    def to_joint(self, tokens: int) -> Work:
        """The projection to the joint space."""
        return linear(tokens, self.width, self.joint)

    def vit(self) -> Work:
        """The plain ViT of one image."""
        blocks = block(self.patches + 1, self.width).stacked(self.depth)
        return self.embed() + blocks + self.to_joint(1)

    def text(self, rows: int, length: int) -> Work:
        """Sentences through the text tower, of whose last block the end tokens are read."""
        whole = block(length, self.text_width).stacked(self.text_depth - 1)
        last = block(length, self.text_width, 1, 1) + linear(1, self.text_width, self.joint)
        return (whole + last).each(rows)


def sizes_of(config: Any) -> Sizes:
    """Sizes of a composed configuration."""
    given = config.backbone.model.architecture
    architecture = get_model_config(given) if isinstance(given, str) else plain(given)
    vision, text = architecture["vision_cfg"], architecture["text_cfg"]
    patch, pixels = int(vision["patch_size"]), int(config.image_size)
    return Sizes(
        depth=int(vision["layers"]),
        width=int(vision["width"]),
        joint=int(architecture["embed_dim"]),
        patches=(pixels // patch) ** 2,
        patch=patch,
        pixels=pixels,
        text_depth=int(text["layers"]),
        text_width=int(text["width"]),
    )


class Sentences(NamedTuple):
    """Rows of text that pass the text tower together."""

    rows: int
    length: int
    """Tokens of the longest."""


def lengths(sentences: list[str]) -> list[int]:
    """Tokens of each sentence, start and end included."""
    ids = get_tokenizer("ViT-L-14-336")(sentences)
    return [int(end) + 1 for end in ids.argmax(dim=1)]


def ensemble_text(name: str, class_name: str) -> tuple[Sentences, Sentences]:
    """The normal and the anomalous sentences about a class."""
    states = map(lengths, PromptEnsemble(name, mean_of="raw").sentences(class_name))
    normal, anomalous = (Sentences(len(own), max(own)) for own in states)
    return normal, anomalous


class Cost(NamedTuple):
    """What a method costs."""

    encode: Work
    """The frozen part for one image, which the cache saves."""
    head: Work
    """From features to score and map of one image."""
    text: Work
    """Text of one class, once for a test; for AdaCLIP nothing, since its text is in `head`."""
    rows: tuple[Sentences, ...]
    """What passes the text tower: for a class, or with AdaCLIP for each image."""
    cached: int
    """Numbers that the cache keeps of an image."""
    step: Work | None
    """Losses and gradients of one image from its features; None if nothing is trained."""
    step_text: Work
    """Text and its gradients once for each batch; 0 where images have their own."""


def cost_of(method: str, config: Any, class_name: str = "object") -> Cost:
    """The arithmetic of a composed configuration.

    Args:
        method: Its name under `conf/method`.
        config: As `crane train` has it.
        class_name: A class of the images, for methods whose sentences name it.
    """
    return {
        "clip": _clip,
        "crane": _crane,
        "crane_plus": _crane,
        "anomalyclip": _anomalyclip,
        "vand": _vand,
        "adaclip": _adaclip,
        "winclip": _winclip,
        "anovl": _anovl,
    }[method](sizes_of(config), config, class_name)


def _blur(s: Sizes, sigma: float) -> Work:
    """Both passes of a Gaussian that is cut at four standard deviations."""
    taps = 2 * int(4 * sigma + 0.5) + 1 if sigma else 0
    return Work(linear=4 * taps * s.pixels**2, moved=4 * s.pixels**2 if taps else 0)


def _compared(s: Sizes, planes: int) -> Work:
    """Patches of some planes with two sentences."""
    return pair(s.patches, s.joint, 2).each(planes)


def _image(s: Sizes) -> Work:
    return pair(1, s.joint, 2)


def _ensemble(s: Sizes, name: str, class_name: str) -> tuple[Work, tuple[Sentences, ...]]:
    """Text of a class; the tower takes at most 256 sentences at a time, padded to the longest."""
    rows, work = ensemble_text(name, class_name), NONE
    for state in PromptEnsemble(name, mean_of="raw").sentences(class_name):
        work += _batched(s, state)
    return work, rows


def _batched(s: Sizes, sentences: list[str]) -> Work:
    own, work = lengths(sentences), NONE
    for first in range(0, len(own), 256):
        part = own[first : first + 256]
        work += s.text(len(part), max(part))
    return work


def _clip(s: Sizes, config: Any, class_name: str) -> Cost:
    text, rows = _ensemble(s, config.method.detector.ensemble, class_name)
    head = _compared(s, 1) + _image(s) + _blur(s, config.method.detector.blur_sigma)
    cached = (1 + s.patches) * s.joint
    return Cost(s.vit() + s.to_joint(s.patches), head, text, rows, cached, None, NONE)


def _streams(s: Sizes, config: Any) -> tuple[Work, int]:
    """The ViT with a second stream and perhaps a guide; the number of local embeddings."""
    stream, tokens = config.attention, s.patches + 1
    kinds = len(stream.correlation.of)
    attending = tokens if config.guide.features is not None else 1
    last = block(tokens, s.width, attending, 1)
    second = attend(tokens, tokens, s.width).each(kinds) + linear(tokens, s.width, s.width)
    work = s.embed() + block(tokens, s.width).stacked(s.depth - 1) + last + s.to_joint(1)
    work += second.stacked(int(stream.num_blocks)) + s.to_joint(s.patches)
    if config.guide.features is None:
        return work, 1
    depth, width, patch, others = _guide(config.guide.features)
    places = (s.pixels // patch) ** 2
    guide = linear(places, 3 * patch**2, width) + block(places + others, width).stacked(depth)
    mixed = pair(places, width, places) + pair(places, places, s.width)
    values = linear(s.patches, s.width, s.width) + linear(places, s.width, s.width)
    return work + guide + mixed + values + s.to_joint(places), 2


def _guide(features: Any) -> tuple[int, int, int, int]:
    if "entry" in features:
        return GUIDES[features.entry]
    options = features.options
    return options.depth, options.embed_dim, options.patch_size, 1


def _prompts(config: Any) -> Sentences:
    own = lengths(list(config.prompt.words.values()))
    return Sentences(2, int(config.prompt.num_words) + max(own))


def _crane(s: Sizes, config: Any, class_name: str) -> Cost:
    encode, planes = _streams(s, config)
    rows, compared = _prompts(config), _compared(s, planes)
    fuse = pair(1, s.patches, s.joint)
    head = compared + fuse + _image(s) + _blur(s, config.scoring.blur_sigma)
    own_text = s.text(2, rows.length + 1)  # in training each image has text of its own
    step = own_text + own_text.backward
    step += (compared + fuse).each(2) + _image(s) + _image(s).backward
    cached = (1 + planes * s.patches) * s.joint
    return Cost(encode, head, s.text(*rows), (rows,), cached, step, NONE)


def _anomalyclip(s: Sizes, config: Any, class_name: str) -> Cost:
    encode, planes = _streams(s, config)
    rows, text = _prompts(config), s.text(*_prompts(config))
    both = _compared(s, planes) + _image(s)
    head = both + _blur(s, config.method.detector.blur_sigma)
    cached = (1 + planes * s.patches) * s.joint
    return Cost(encode, head, text, (rows,), cached, both.each(2), text + text.backward)


def _vand(s: Sizes, config: Any, class_name: str) -> Cost:
    text, rows = _ensemble(s, config.method.detector.ensemble, class_name)
    taps = len(config.method.detector.taps)
    tapped = s.to_joint(s.patches).stacked(taps) + _compared(s, taps)
    cached = s.joint + taps * s.patches * s.width
    step = tapped.each(2) + _image(s)  # gradients of the layers, and of what they give
    return Cost(s.vit(), tapped + _image(s), text, rows, cached, step, NONE)


def _adaclip(s: Sizes, config: Any, class_name: str) -> Cost:
    method, tokens = config.method.detector, s.patches + 1
    taps, length = len(method.taps), int(method.length)
    vision = block(tokens + length, s.width).stacked(s.depth) + s.to_joint(1)
    layers = s.to_joint(s.patches).stacked(taps) + linear(1, s.joint, s.joint)
    generators = linear(1, s.joint, s.width) + linear(1, s.joint, s.text_width)
    generators = generators.stacked(length)
    rows = ensemble_text(method.ensemble, class_name)
    text = s.text(*rows[0]) + s.text(*rows[1])
    first = block(rows[0].length, s.text_width).each(rows[0].rows)
    first += block(rows[1].length, s.text_width).each(rows[1].rows)
    compared = _compared(s, taps) + _image(s)
    head = vision + layers + generators + text + compared + _blur(s, method.blur_sigma)
    # The first block of the text tower reads no prompt, so no gradient passes it.
    prompted = vision.backward + text.backward
    unprompted = first.backward
    step = vision + text + layers + layers.each(2) + generators.each(2)
    step += compared + compared.backward + prompted
    step = Work(
        step.linear - unprompted.linear,
        step.pairs - unprompted.pairs,
        step.moved - unprompted.moved,
        step.weights - unprompted.weights,
    )
    cached = s.joint + tokens * s.width
    return Cost(s.vit(), head, NONE, rows, cached, step, NONE)


def _winclip(s: Sizes, config: Any, class_name: str) -> Cost:
    method = config.method.detector
    text, rows = _ensemble(s, method.ensemble, class_name)
    windows = {k: (s.side - k + 1) ** 2 for k in method.scales}
    encode, head = s.vit(), _image(s) + pair(sum(windows.values()), s.joint, 2)
    for k, num in windows.items():
        one = block(k * k + 1, s.width).stacked(s.depth) + s.to_joint(1)
        encode += one.each(num)
        head += pair(1, num, s.patches)
    cached = (1 + sum(windows.values())) * s.joint
    return Cost(encode, head, text, rows, cached, None, NONE)


def _anovl(s: Sizes, config: Any, class_name: str) -> Cost:
    method, tokens = config.method.detector, s.patches + 1
    text, rows = _ensemble(s, method.ensemble, class_name)
    normal, anomalous = PromptEnsemble(method.ensemble, mean_of="raw").sentences(class_name)
    text += _batched(s, [*normal, *anomalous])
    second = linear(tokens, s.width, 3 * s.width) + attend(tokens, tokens, s.width)
    second += linear(tokens, s.width, s.width)
    encode = s.vit().stacked(NUM_VIEWS) + second.stacked(s.depth) + s.to_joint(s.patches)
    sentences = len(normal) + len(anomalous)
    adapted = linear(s.patches, s.joint, sentences) + pair(s.patches, sentences, s.joint)
    adapted += pair(s.patches, s.joint, 2)
    # A step adapts clean and noisy patches, and computes as many gradients.
    head = pair(NUM_VIEWS, s.joint, 2) + adapted.stacked(4 * int(method.num_steps) + 1)
    cached = (NUM_VIEWS + s.patches) * s.joint
    return Cost(encode, head, text, rows, cached, None, NONE)
