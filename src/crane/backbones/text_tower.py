"""The frozen text tower of CLIP, from token embeddings on."""

from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from crane.backbones.block import Block
from crane.checks import shown
from crane.errors import UsageError

Tokenizer = Callable[[str], Int[Tensor, "1 _"]]


class TextTower(nn.Module):
    """CLIP's text transformer, fed with rows of embeddings so that some of them can be learned.

    Args:
        model: An open_clip model, or its text tower.
        tokenizer: From a sentence to padded token ids, (1, context length).

    Raises:
        UsageError: The text tower is not a causal transformer that reads its last token.
    """

    positions: Tensor
    blocks: Sequence[Block]

    def __init__(self, model: nn.Module, tokenizer: Tokenizer) -> None:
        super().__init__()
        tower: Any = getattr(model, "text", model)
        pool_type = getattr(tower, "pool_type", getattr(tower, "text_pool_type", "argmax"))
        projection = getattr(tower, "text_projection", None)
        mask = getattr(tower, "attn_mask", None)
        appended = getattr(tower, "cls_emb", None) is not None  # CoCa's: read instead of the end
        causal = mask is not None and not appended
        if not isinstance(projection, Tensor) or not causal or pool_type not in ("argmax", "eos"):
            raise UsageError(
                f"the backbone's text tower ({type(tower).__name__}, pooling {pool_type}) is not "
                "CLIP's: causal, pooled at the end token, with one projection matrix",
                key="backbone",
            )
        self.token_embedding, self.ln_final = tower.token_embedding, tower.ln_final
        self.positions = tower.positional_embedding
        self.projection = projection
        blocks = nn.ModuleList(Block(block) for block in tower.transformer.resblocks)
        self.blocks = cast(Sequence[Block], blocks)
        self.tokenizer = tokenizer

    @property
    def width(self) -> int:
        """D, the width of a token."""
        return int(self.positions.shape[1])

    @property
    def joint_width(self) -> int:
        """E, the width that images and texts share."""
        return int(self.projection.shape[1])

    @property
    def max_length(self) -> int:
        """Most tokens of a sentence, start and end included."""
        return int(self.positions.shape[0])

    def tokenize(self, sentence: str) -> Int[Tensor, " L"]:
        """Token ids of a sentence from its start token to its end token, without padding.

        The end token has the highest id of the vocabulary, as in all of CLIP's tokenizers.

        Raises:
            UsageError: The sentence is empty or too long for the tower.
        """
        ids = self.tokenizer(sentence)[0]
        length = int(ids.argmax()) + 1
        if not sentence.strip() or length >= self.max_length:
            raise UsageError(
                f"must have 1 to {self.max_length - 3} tokens, not {shown(sentence)}",
                key="prompt.words",
            )
        return ids[:length]

    @torch.no_grad()
    def encode(self, sentences: Sequence[str], *, batch_size: int = 256) -> Float[Tensor, "S E"]:
        """Embeddings of whole sentences, not normalised: plain CLIP.

        Args:
            sentences: The sentences.
            batch_size: Sentences that pass the tower at a time.

        Raises:
            UsageError: A sentence is empty or too long for the tower.
        """
        device = self.positions.device
        embedded = []
        for first in range(0, len(sentences), batch_size):
            ids = [self.tokenize(one) for one in sentences[first : first + batch_size]]
            padded = nn.utils.rnn.pad_sequence(ids, batch_first=True).to(device)
            ends = torch.tensor([len(one) - 1 for one in ids], device=device)
            embedded.append(self(self.token_embedding(padded), ends, None))
        return torch.cat(embedded)

    def forward(
        self,
        rows: Float[Tensor, "R L D"],
        ends: Int[Tensor, " R"],
        deep: Float[Tensor, "J R K D"] | None,
    ) -> Float[Tensor, "R E"]:
        """Embeddings of sentences given as rows of token embeddings.

        Args:
            rows: Token embeddings. Attention is causal, so tokens after an end do not matter.
            ends: Position of each row's end token, whose output embeds the sentence.
            deep: Learned tokens: set j replaces positions 1 to K in the input of block j + 1.
                None for ordinary sentences.
        """
        x = rows + self.positions[: rows.shape[1]]
        *blocks, last = self.blocks
        for block, learned in zip_longest(blocks, () if deep is None else deep[: len(blocks)]):
            x = block(x, causal=True)
            if learned is not None:  # replaces this block's output for these tokens
                x[:, 1 : 1 + learned.shape[1]] = learned
        x = last.read(x, ends)
        sentences: Tensor = self.ln_final(x) @ self.projection
        return sentences
