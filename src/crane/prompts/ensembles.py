"""Prompt ensembles: many sentences about the normal and the anomalous state of a named class."""

from collections.abc import Sequence
from functools import lru_cache
from importlib.resources import files
from typing import Any, Literal, Protocol, runtime_checkable

import torch
import yaml
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from crane.checks import checked

EnsembleName = Literal["clip", "winclip", "vand", "adaclip", "anovl"]
STATES = ("normal", "anomalous")


@runtime_checkable
class SentenceEncoder(Protocol):
    """The part of a text tower that ensembles need."""

    def encode(self, sentences: Sequence[str]) -> Float[Tensor, "S E"]:
        """Embeddings of sentences, not normalised."""


@lru_cache(maxsize=1)
def _ensembles() -> dict[str, dict[str, Any]]:
    text = (files("crane.prompts") / "ensembles.yaml").read_text(encoding="utf-8")
    content: dict[str, dict[str, Any]] = yaml.safe_load(text)
    return content


class PromptEnsemble:
    """The sentences of a published method; words, sources and licences stand in ensembles.yaml.

    Args:
        name: Whose sentences.
        mean_of: What is averaged over the sentences of a state before the mean is normalised:
            `raw` embeddings (WinCLIP, AnoVL) or `unit` ones (VAND, AdaCLIP).

    >>> normal, anomalous = PromptEnsemble("winclip", mean_of="raw").sentences("metal_nut")
    >>> len(normal), len(anomalous), anomalous[0]
    (147, 84, 'a cropped photo of the damaged metal_nut.')
    """

    @checked
    def __init__(self, name: EnsembleName, *, mean_of: Literal["raw", "unit"]) -> None:
        self.name, self.mean_of = name, mean_of
        self._words = _ensembles()[name]

    def sentences(self, class_name: str) -> tuple[list[str], list[str]]:
        """The normal and the anomalous sentences about a class, in the published order.

        Args:
            class_name: As the data set has it; published replacements (`macaroni1`, hyphens) are
                applied here.
        """
        words = self._words
        name = words.get("class_names", {}).get(class_name, class_name)
        for old, new in words.get("replace", {}).items():
            name = name.replace(old, new)
        kind = "templates"
        if kind not in words:
            kind += "_texture" if class_name in words["textures"] else "_object"
        templates, outer_states = words[kind], words["order"].startswith("states outer")
        found = []
        for state in STATES:
            states = [one.format(name) for one in words[state]]
            if outer_states:
                pairs = [(template, one) for one in states for template in templates]
            else:
                pairs = [(template, one) for template in templates for one in states]
            found.append([template.format(one) for template, one in pairs])
        return found[0], found[1]

    def encode(self, text: SentenceEncoder, class_names: Sequence[str]) -> Float[Tensor, "C 2 E"]:
        """Unit-norm t_n and t_a of each class.

        Args:
            text: The frozen text tower.
            class_names: The classes.
        """
        pairs = []
        for class_name in class_names:
            for sentences in self.sentences(class_name):
                embedded = text.encode(sentences)
                if self.mean_of == "unit":
                    embedded = F.normalize(embedded, dim=-1)
                pairs.append(F.normalize(embedded.mean(dim=0), dim=-1))
        return torch.stack(pairs).unflatten(0, (-1, 2))
