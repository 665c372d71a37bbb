"""The official code's prompt checkpoints: the one place that knows its names."""

import warnings
from collections.abc import Mapping

import torch
from torch import Tensor

from crane.errors import UsageError
from crane.prompts import PromptLearner

_STATE_OF = {"pos": "normal", "neg": "anomalous"}


def is_official(content: Mapping[str, object]) -> bool:
    """Whether a loaded file is `{"prompt_learner": state dict}` or such a state dict."""
    return "prompt_learner" in content or "ctx_pos" in content


def prompts_from_official(
    content: Mapping[str, object], into: PromptLearner | None = None
) -> dict[str, Tensor]:
    """A prompt state dict under our names: `words.normal`, `words.anomalous`, `deep`.

    Args:
        content: What the file holds: `{"prompt_learner": {...}}`, or the inner state dict.
        into: Prompts that the state dict is for. Their tokenisation must be the one that the
            checkpoint was made with.

    Raises:
        UsageError: Tensors are missing, or the checkpoint was made with other words.

    Warns:
        UserWarning: The checkpoint was made with other token embeddings, that is with other CLIP
            weights: its prompts mean nothing there.
    """
    state = content.get("prompt_learner", content)
    if not isinstance(state, Mapping):
        raise UsageError(
            "a state dict under prompt_learner", type(state).__name__, key="checkpoint"
        )
    sets = sorted(
        (name for name in state if name.startswith("compound_prompts_text.")),
        key=lambda name: int(name.rsplit(".", 1)[1]),
    )
    missing = [name for name in ("ctx_pos", "ctx_neg") if name not in state]
    if missing:
        raise UsageError("ctx_pos and ctx_neg", sorted(state), key="checkpoint")
    no_tensors = [k for k in ("ctx_pos", "ctx_neg", *sets) if not isinstance(state[k], Tensor)]
    if no_tensors:
        raise UsageError("tensors", f"others under {', '.join(no_tensors)}", key="checkpoint")
    width = state["ctx_pos"].shape[-1]
    none = torch.empty(0, 1, width) if into is None else into.deep.detach()[:0]
    deep = torch.stack([state[name] for name in sets]) if sets else none
    prompts = {
        f"words.{_STATE_OF[short]}": state[f"ctx_{short}"].float().reshape(-1, width)
        for short in _STATE_OF
    }
    if into is not None:
        for short, name in _STATE_OF.items():
            _check_tokens(state, short, len(prompts[f"words.{name}"]), into, name)
    return prompts | {"deep": deep.float()}


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
                f"prompts made for the {name} words of this configuration, tokens {ids.tolist()}",
                f"a checkpoint made with tokens {sentence.tolist()}",
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
            f"of the {name} words differ): its prompts mean nothing here; check backbone",
            stacklevel=3,
        )
