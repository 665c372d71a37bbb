"""The official code's prompt checkpoints: the one place that knows their names."""

import warnings
from collections.abc import Mapping

import torch
from torch import Tensor

from crane.errors import UsageError
from crane.prompts import PromptLearner

OFFICIAL_STATES = {"pos": "normal", "neg": "anomalous"}
"""The official code's names of the two sentences, and ours."""


def is_official(content: Mapping[str, object]) -> bool:
    """Whether a loaded file is `{"prompt_learner": state dict}` or such a state dict."""
    return "prompt_learner" in content or "ctx_pos" in content


def from_other_authors(content: Mapping[str, object]) -> dict[str, Tensor] | None:
    """The learned tensors of VAND's or AdaCLIP's checkpoints, under their authors' names.

    Args:
        content: Content of the file: `{"trainable_linearlayer": state dict}` (VAND) or a flat
            state dict under `clip_model.` (AdaCLIP).

    Returns:
        None for anything else.
    """
    linear = content.get("trainable_linearlayer")
    found = linear if isinstance(linear, Mapping) else content
    if linear is None:
        found = {n: v for n, v in content.items() if str(n).startswith("clip_model.")}
    if not found or not all(isinstance(value, Tensor) for value in found.values()):
        return None
    return {str(name): value for name, value in found.items() if isinstance(value, Tensor)}


def prompts_from_official(
    content: Mapping[str, object], into: PromptLearner | None = None
) -> dict[str, Tensor]:
    """Rename the official code's prompts to ours: `words.normal`, `words.anomalous`, `deep`.

    Args:
        content: Content of the file: `{"prompt_learner": {...}}`, or the inner state dict.
        into: Prompts that will take the values. Their words must be tokenised as those that the
            checkpoint was made with.

    Raises:
        UsageError: Tensors are missing, or the checkpoint was made with other words.

    Warns:
        UserWarning: The checkpoint was made with other token embeddings, that is with other CLIP
            weights, for which its prompts mean nothing.
    """
    state = content.get("prompt_learner", content)
    if not isinstance(state, Mapping):
        raise UsageError(
            f"the checkpoint holds {type(state).__name__} under prompt_learner, not a state dict",
            key="checkpoint",
        )
    sets = sorted(
        (name for name in state if name.startswith("compound_prompts_text.")),
        key=lambda name: int(name.rsplit(".", 1)[1]),
    )
    words = [f"ctx_{short}" for short in OFFICIAL_STATES]
    wrong = [name for name in (*words, *sets) if not _is_real(state.get(name))]
    if wrong:
        raise UsageError(
            f"the checkpoint has no tensor of real numbers under {', '.join(wrong)}",
            key="checkpoint",
        )
    width = state["ctx_pos"].shape[-1]
    none = torch.empty(0, 1, width) if into is None else into.deep.detach()[:0]
    deep = torch.stack([state[name] for name in sets]) if sets else none
    prompts = {
        f"words.{OFFICIAL_STATES[short]}": state[f"ctx_{short}"].float().reshape(-1, width)
        for short in OFFICIAL_STATES
    }
    if into is not None:
        for short, name in OFFICIAL_STATES.items():
            _check_tokens(state, short, len(prompts[f"words.{name}"]), into, name)
    return prompts | {"deep": deep.float()}


def _is_real(value: object) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def _check_tokens(
    state: Mapping[str, Tensor], short: str, num_words: int, into: PromptLearner, name: str
) -> None:
    ids = getattr(into, f"ids_{name}").cpu()
    made_with = state.get(f"tokenized_prompts_{short}")
    if made_with is not None:
        row = made_with.reshape(-1)
        sentence = torch.cat([row[:1], row[1 + num_words : int(row.argmax()) + 1]]).long()
        if not torch.equal(sentence, ids.long()):
            raise UsageError(
                f"the checkpoint was made for other {name} words (tokens {sentence.tolist()}) than "
                f"those of this configuration ({ids.tolist()}); change prompt.words.{name}",
                key=f"prompt.words.{name}",
            )
    embedded = getattr(into, f"embedded_{name}").cpu()
    prefix, suffix = state.get(f"token_prefix_{short}"), state.get(f"token_suffix_{short}")
    if prefix is None or suffix is None or prefix.shape[-1] != embedded.shape[-1]:
        return
    width = embedded.shape[-1]
    theirs = torch.cat([prefix.reshape(-1, width), suffix.reshape(-1, width)])[: len(embedded)]
    if not torch.allclose(theirs.float(), embedded.float(), atol=1e-3):
        warnings.warn(
            "the checkpoint was made with other CLIP weights than the backbone's (its embeddings "
            f"of the {name} words differ), so its prompts mean nothing here; check backbone",
            stacklevel=3,
        )
