"""The methods of Table 1 against their slow float64 versions, on random geometries and images."""

import random
from dataclasses import dataclass, field
from functools import cached_property
from importlib.resources import files
from typing import Any

import pytest
import torch
import yaml
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor

from crane.gate import build
from crane.methods import adaclip as adaclip_module
from crane.methods import build_model
from crane.methods.adaclip import AdaClip, from_authors
from crane.methods.anovl import AnoVl
from crane.prompts.ensembles import PromptEnsemble
from reference import baselines_slow as slow
from reference import crane_slow, scoring_slow
from reference.build import composed, furthest
from reference.generated import generated_clip_state_dict, generated_prompts, generated_tensor

pytestmark = pytest.mark.long

CLOSE = 1e-7
WORDS = yaml.safe_load((files("crane.prompts") / "ensembles.yaml").read_text(encoding="utf-8"))
CLASSES = ["bottle", "pipe-fryum", "macaroni2", "carpet"]
PROPERTY = settings(
    max_examples=4,
    deadline=None,
    derandomize=True,
    phases=(Phase.explicit, Phase.generate),
)


@dataclass(frozen=True)
class Case:
    """A backbone, images of three classes at most, and what differs from the defaults."""

    clip: dict[str, int]
    seed: int
    images: Tensor = field(repr=False)
    class_id: Tensor
    taps: list[int]
    quick_gelu: bool
    positions: str
    rng: random.Random
    """For what a single method draws."""

    def up_to(self, most: int, least: int = 1) -> int:
        return self.rng.randint(least, most)

    @cached_property
    def state(self) -> crane_slow.State:
        return crane_slow.in_double(generated_clip_state_dict(self.seed, **self.clip))

    @property
    def size(self) -> tuple[int, int]:
        height, width = self.images.shape[-2:]
        return height, width

    @property
    def activation(self) -> Any:
        return crane_slow.quick_gelu if self.quick_gelu else crane_slow.gelu

    def tensor(self, name: str, *shape: int, std: float | None = None) -> Tensor:
        std = shape[-1] ** -0.5 if std is None else std
        return generated_tensor(name, shape, std, seed=self.seed).double()

    def linear(self, name: str, rows: int, columns: int) -> crane_slow.State:
        return {
            f"{name}.weight": self.tensor(f"{name}.weight", rows, columns),
            f"{name}.bias": self.tensor(f"{name}.bias", rows, std=0.02),
        }

    def model(self, *overrides: str, learned: crane_slow.State | None = None) -> Any:
        gelu = f"backbone.model.quick_gelu={str(self.quick_gelu).lower()}"
        model = build_model(
            composed(*overrides, gelu),
            clip_state_dict=generated_clip_state_dict(self.seed, **self.clip),
            prompt_state_dict=None
            if learned is None
            else {n: v.float() for n, v in learned.items()},
        ).double()
        tower = getattr(model.vision, "tower", model.vision)
        tower.mean.zero_()
        tower.std.fill_(1.0)
        return model

    def predict(self, model: Any) -> Any:
        with torch.no_grad():
            return model(self.images, CLASSES, self.class_id)


@st.composite
def cases(draw: st.DrawFn, *, joint_is_text: bool = False, least_grid: int = 1) -> Case:
    def up_to(most: int, least: int = 1) -> int:
        return draw(st.integers(least, most))

    text_width = draw(st.sampled_from([64, 128]))
    clip = {
        "vision_layers": up_to(4, 2),
        "vision_width": draw(st.sampled_from([64, 128, 192])),
        "patch": up_to(4, 2),
        "grid": up_to(4),
        "text_layers": up_to(3, 2),
        "text_width": text_width,
        "joint": text_width if joint_is_text else draw(st.sampled_from([64, 128])),
    }
    num_images = up_to(3)
    generator = torch.Generator().manual_seed(up_to(10_000))
    size = [up_to(5, least_grid) * clip["patch"] for _ in range(2)]
    return Case(
        clip=clip,
        seed=up_to(3),
        images=torch.randn(num_images, 3, *size, generator=generator).double(),
        class_id=torch.randint(len(CLASSES), (num_images,), generator=generator),
        taps=sorted(draw(st.sets(st.integers(1, clip["vision_layers"]), min_size=1))),
        quick_gelu=draw(st.booleans()),
        positions=draw(st.sampled_from(sorted(slow.RESIZES))),
        rng=random.Random(up_to(10_000)),
    )


def blurred(maps: Tensor, sigma: float = 4.0) -> Tensor:
    return scoring_slow.blur(maps, sigma)


def check_training(
    case: Case, method: str, model: Any, pixels: Tensor, images: Tensor, learned: dict[str, Tensor]
) -> None:
    """Losses and gradients of the configured loss, on random masks.

    Args:
        case: The case.
        method: Option of the group `method`.
        model: Ours.
        pixels: (M, B, 2, H, W), slow probabilities.
        images: (B, 2), slow logits.
        learned: Slow learned tensors, by the names of ours.
    """
    shape = (len(case.images), *case.size)
    mask = (torch.rand(shape, generator=torch.Generator().manual_seed(case.seed)) > 0.7).long()
    label = mask.amax((1, 2))
    focal = sum(scoring_slow.focal_loss(one, mask) for one in pixels)
    dice = slow.dice_of_rows if method == "adaclip" else scoring_slow.dice_loss
    anomalous = sum(dice(one[:, 1], mask) for one in pixels)
    normal = sum(dice(one[:, 0], 1 - mask) for one in pixels)
    if method == "vand":
        total = focal + anomalous
    elif method == "anomalyclip":
        total = 4 * (focal + anomalous + normal) + scoring_slow.cross_entropy(images, label)
    else:
        two = crane_slow.softmax(images).reshape(-1, 2, 1, 1)
        score_loss = scoring_slow.focal_loss(two, label.reshape(-1, 1, 1))
        total = score_loss + focal + anomalous + normal

    features, text = model.encode(case.images), model.training_text(CLASSES)
    outputs = model.training_outputs(features, text, case.class_id, case.size)
    loss = build(composed(f"method={method}").loss, "loss")
    known = torch.ones(len(mask), dtype=torch.bool)
    losses = loss(outputs, mask=mask.int(), has_mask=known, label=label)
    assert furthest(losses.total, total) < 1e-6 * max(1.0, abs(total.item()))
    losses.total.backward()
    total.backward()
    parameters = dict(model.learned.named_parameters())
    for name, value in learned.items():
        ours = parameters[name].grad
        if value.grad is None:
            assert ours is None, name
        else:
            scale = max(0.01, float(value.grad.abs().max()))
            assert furthest(ours, value.grad) < 1e-5 * scale, name


@PROPERTY
@given(cases())
def test_anomalyclip(case: Case) -> None:
    num_blocks = case.up_to(case.clip["vision_layers"])
    taps = sorted({*case.taps, case.clip["vision_layers"]})
    words, length, depth = case.up_to(5, 3), case.up_to(3), case.up_to(case.clip["text_layers"])
    official = generated_prompts(case.seed, case.clip["text_width"], words, depth - 1, length)
    model = case.model(
        *("method=anomalyclip", f"method.detector.taps={taps}", f"prompt.depth={depth}"),
        *(f"attention.num_blocks={num_blocks}", f"prompt.num_words={words}"),
        *(f"prompt.num_deep={length}", "prompt.round_deep_to_half=false"),
        learned=official,
    )
    learned = {name: value.double().requires_grad_() for name, value in official.items()}
    text = crane_slow.text(case.state, learned, None, "none", False, case.activation)[0]
    seen = [
        slow.anomalyclip(case.state, one, text, taps, num_blocks, case.activation)
        for one in case.images
    ]
    pixels = torch.stack([slow.softmax_then_upsample(s, case.size, 0.07) for s in seen], 1)
    logits = torch.stack([s.global_ @ text.T / 0.07 for s in seen])
    found = case.predict(model)
    assert furthest(found.score, crane_slow.softmax(logits.detach())[:, 1]) < CLOSE
    assert furthest(found.map, blurred(pixels[:, :, 1].detach().mean(0))) < CLOSE
    check_training(
        case, "anomalyclip", model, pixels, logits,
        {"words.normal": learned["ctx_pos"], "words.anomalous": learned["ctx_neg"]},
    )  # fmt: skip


@PROPERTY
@given(cases(least_grid=2))
def test_vand(case: Case) -> None:
    """Of one column torch's antialiased resizing makes nonsense; models get square images."""
    learned: crane_slow.State = {}
    for i in range(len(case.taps)):
        learned |= case.linear(f"fc.{i}", case.clip["joint"], case.clip["vision_width"])
    model = case.model(
        *("method=vand", "method.detector.ensemble=adaclip", f"method.detector.taps={case.taps}"),
        f"method.detector.position_resize={case.positions}",
        learned=learned,
    )
    for value in learned.values():
        value.requires_grad_()
    seen = []
    for image, c in zip(case.images, case.class_id.tolist(), strict=True):
        text = slow.text_pair(case.state, WORDS["adaclip"], CLASSES[c], case.activation, "unit")
        seen.append(
            slow.vand(case.state, learned, image, text, case.taps, case.activation, case.positions)
        )
    pixels = torch.stack([slow.upsample_then_softmax(s, case.size, 0.01) for s in seen], 1)
    logits = torch.stack([s.global_ @ s.text.T / 0.01 for s in seen])
    found = case.predict(model)
    assert furthest(found.score, crane_slow.softmax(logits)[:, 1]) < CLOSE
    assert furthest(found.map, pixels[:, :, 1].detach().mean(0)) < CLOSE
    named = {name.removeprefix("fc."): value for name, value in learned.items()}
    check_training(case, "vand", model, pixels, logits, named)


@PROPERTY
@given(
    cases(joint_is_text=True, least_grid=2),
    st.sampled_from(["V", "L", "VL"]),
    st.sampled_from(["S", "D", "SD"]),
)
def test_adaclip(case: Case, branch: str, kind: str) -> None:
    widths = {"visual": case.clip["vision_width"], "text": case.clip["text_width"]}
    least = min(case.clip["vision_layers"], case.clip["text_layers"])
    depth, length, clusters = case.up_to(least), case.up_to(4), case.up_to(3)
    joint, learned = (
        case.clip["joint"],
        case.linear("cls_token_layer.head.0", *[case.clip["joint"]] * 2),
    )
    for i in range(len(case.taps)):
        learned |= case.linear(f"patch_token_layer.head.{i}", joint, widths["visual"])
    for which, letter in (("visual", "V"), ("text", "L")):
        for j in range(depth if "S" in kind and letter in branch else 0):
            name = f"{which}_prompter.static_prompts.{j}"
            learned[name] = case.tensor(name, length, widths[which], std=0.02)
        for j in range(length if "D" in kind else 0):
            learned |= case.linear(
                f"dynamic_{which}_prompt_generator.head.{j}", widths[which], joint
            )
    detector = {
        "taps": case.taps, "depth": depth, "length": length, "branch": branch, "kind": kind,
        "num_clusters": clusters, "patches_per_cluster": 3, "position_resize": case.positions,
        "ensemble": "clip",
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:  # rounding and k-means are held by the goldens
        patch.setattr(adaclip_module, "rounded", lambda prompts: prompts)
        patch.setattr(AdaClip, "cluster", lambda self, rows, number: cluster(rows))
        model = case.model(
            "method=adaclip", *(f"method.detector.{k}={v}" for k, v in detector.items()),
            learned=learned,
        )  # fmt: skip

        def cluster(rows: Tensor) -> Tensor:
            return torch.arange(len(rows)) * 7 % clusters

        for value in learned.values():
            value.requires_grad_()
        seen = [
            slow.adaclip(
                case.state, learned, image, WORDS["clip"], CLASSES[c], case.activation,
                taps=case.taps, depth=depth, length=length, branch=branch, kind=kind,
                positions=case.positions,
            )
            for image, c in zip(case.images, case.class_id.tolist(), strict=True)
        ]  # fmt: skip
        fused = [
            slow.semantic_fusion(s, clusters, 3, 0.2, 0.01, lambda r: cluster(r).tolist())
            for s in seen
        ]
        logits = torch.stack([g @ s.text.T / 0.01 for g, s in zip(fused, seen, strict=True)])
        maps = torch.stack([slow.mean_logits_map(s, case.size, 0.01) for s in seen])
        pixels = torch.stack([slow.upsample_then_softmax(s, case.size, 0.01) for s in seen], 1)
        found = case.predict(model)
        assert furthest(found.score, crane_slow.softmax(logits.detach())[:, 1]) < 10 * CLOSE
        assert furthest(found.map, blurred(maps.detach())) < 10 * CLOSE
        named = {
            ours: learned[name] for name in learned for ours in from_authors({name: learned[name]})
        }
        check_training(case, "adaclip", model, pixels, logits, named)


@PROPERTY
@given(cases(least_grid=3), st.sampled_from([[2, 3], [1], [3], [1, 2]]))
def test_winclip(case: Case, scales: list[int]) -> None:
    model = case.model(
        "method=winclip", "method.detector.ensemble=adaclip",
        f"method.detector.scales={scales}", f"method.detector.window_batch={case.up_to(9)}",
    )  # fmt: skip
    found = case.predict(model)
    for b, (image, c) in enumerate(zip(case.images, case.class_id.tolist(), strict=True)):
        text = slow.text_pair(case.state, WORDS["adaclip"], CLASSES[c], case.activation, "raw")
        score, patches, grid = slow.winclip(case.state, image, text, scales, case.activation, 0.07)
        assert furthest(found.score[b], score) < CLOSE
        assert furthest(found.map[b], crane_slow.resize(patches[:, None], grid, case.size)) < CLOSE


@PROPERTY
@given(cases(least_grid=2), st.booleans())
def test_anovl(case: Case, carry: bool) -> None:
    model = case.model(
        *("method=anovl", "method.detector.ensemble=clip"),
        f"method.detector.num_steps={case.up_to(3)}",
        f"method.detector.carry_optimizer={str(carry).lower()}",
    )
    width = case.clip["joint"]

    def weights(number: int) -> tuple[Tensor, Tensor]:
        return case.tensor(f"weight.{number}", 2, width), case.tensor(f"bias.{number}", 2)

    def noise(x: Tensor, number: int, step: int) -> Tensor:
        return case.tensor(f"noise.{number}.{step}", *x.shape, std=0.1)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AnoVl, "first_weights", lambda self, rows, generator, number: weights(number))
        patch.setattr(AnoVl, "noise", lambda self, x, generator, n, step: noise(x, n, step))
        found = case.predict(model)
    states: dict[int, slow.AdamWState] = {}
    for b, (image, c) in enumerate(zip(case.images, case.class_id.tolist(), strict=True)):
        normal, anomalous = slow.sentences_of(WORDS["clip"], CLASSES[c])
        rows = crane_slow.unit(
            slow.embed_sentences(case.state, [*normal, *anomalous], case.activation)
        )
        text = slow.text_pair(case.state, WORDS["clip"], CLASSES[c], case.activation, "raw")
        global_, x, grid = slow.anovl_vision(case.state, image, case.activation)
        optimizer = states.setdefault(c, slow.AdamWState()) if carry else slow.AdamWState()
        noises = [noise(x, b, step) for step in range(model.num_steps)]
        patches = slow.adapted(x, rows, text, *weights(b), noises, optimizer, 1e-3, 0.01)
        plane = slow.smoothed(patches, grid)[:, None].detach()
        wanted = crane_slow.resize(plane, grid, case.size, slow.corners_matrix)
        assert furthest(found.score[b], slow.probability(global_, text, 1.0).mean()) < CLOSE
        assert furthest(found.map[b], wanted) < CLOSE


@PROPERTY
@given(cases())
def test_plain_clip(case: Case) -> None:
    found = case.predict(case.model("method=clip"))
    for b, (image, c) in enumerate(zip(case.images, case.class_id.tolist(), strict=True)):
        text = slow.text_pair(case.state, WORDS["clip"], CLASSES[c], case.activation, "unit")
        seen = slow.plain_clip(case.state, image, text, case.activation)
        pixels = slow.softmax_then_upsample(seen, case.size, 0.01)
        assert furthest(found.score[b], slow.probability(seen.global_, text, 0.01)) < CLOSE
        assert furthest(found.map[b], blurred(pixels[0, None, 1])) < CLOSE


@pytest.mark.parametrize("name", sorted(WORDS))
def test_sentences_in_their_order(name: str) -> None:
    for class_name in [*CLASSES, "metal_nut", "wood", "a {brace}"]:
        ours = PromptEnsemble(name, mean_of="raw").sentences(class_name)
        assert tuple(ours) == slow.sentences_of(WORDS[name], class_name)
