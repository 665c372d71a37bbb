"""The frozen towers of CLIP, made of blocks that expose their queries, keys and values."""

from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import Any, Literal, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from crane.checks import shown
from crane.errors import UsageError

Heads = Float[Tensor, "B heads T d"]


class Block(nn.Module):
    """One frozen pre-norm block in four steps, from which Crane's streams are put together.

    It shares the weights of the given block: LN1, W_qkv, Proj, LN2 and MLP of the specification.

    Args:
        block: A residual attention block of an open_clip tower.

    Raises:
        UsageError: The block has another architecture (cross attention, query-key norms, ...).
    """

    def __init__(self, block: nn.Module) -> None:
        from open_clip.transformer import ResidualAttentionBlock

        super().__init__()
        if not isinstance(block, ResidualAttentionBlock) or hasattr(block, "ln_1_kv"):
            raise UsageError(
                f"the backbone's tower is made of {type(block).__name__}; Crane needs ordinary "
                "pre-norm attention blocks",
                key="backbone",
            )
        self.ln_1, self.attn, self.scale_1 = block.ln_1, block.attn, block.ls_1
        self.ln_2, self.feed_forward, self.scale_2 = block.ln_2, block.mlp, block.ls_2

    def qkv(self, x: Float[Tensor, "B T D"]) -> tuple[Heads, Heads, Heads]:
        """Queries, keys and values of each head, from one product: W_qkv LN1(x)."""
        flat = F.linear(self.ln_1(x), self.attn.in_proj_weight, self.attn.in_proj_bias)
        q, k, v = flat.unflatten(-1, (3, self.attn.num_heads, -1)).permute(2, 0, 3, 1, 4)
        return q, k, v

    def values(self, x: Float[Tensor, "B T D"]) -> Heads:
        """The values alone."""
        width = x.shape[-1]
        weight, bias = self.attn.in_proj_weight[2 * width :], self.attn.in_proj_bias[2 * width :]
        flat = F.linear(self.ln_1(x), weight, bias)
        return flat.unflatten(-1, (self.attn.num_heads, -1)).transpose(1, 2)

    def project(self, attended: Heads) -> Float[Tensor, "B T D"]:
        """The term that attention adds to its stream: Proj of the concatenated heads."""
        out: Tensor = self.scale_1(self.attn.out_proj(attended.transpose(1, 2).flatten(2)))
        return out

    def mlp(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        """The term that the feed-forward part adds to its stream: MLP(LN2(x))."""
        out: Tensor = self.scale_2(self.feed_forward(self.ln_2(x)))
        return out

    def read(self, x: Float[Tensor, "R L D"], at: Int[Tensor, " R"]) -> Float[Tensor, "R D"]:
        """Output of the causal block at one position of each row, all that a last block needs."""
        q, k, v = self.qkv(x)
        rows = torch.arange(x.shape[0], device=x.device)
        seen = torch.arange(x.shape[1], device=x.device) <= at.unsqueeze(1)
        attended = F.scaled_dot_product_attention(
            q[rows, :, at].unsqueeze(2), k, v, attn_mask=seen[:, None, None]
        )
        y = x[rows, at].unsqueeze(1) + self.project(attended)
        return (y + self.mlp(y)).squeeze(1)

    def forward(self, x: Float[Tensor, "B T D"], *, causal: bool = False) -> Float[Tensor, "B T D"]:
        """The ordinary block: softmax attention, then the feed-forward part, both residual."""
        q, k, v = self.qkv(x)
        x = x + self.project(F.scaled_dot_product_attention(q, k, v, is_causal=causal))
        return x + self.mlp(x)


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


PositionResize = Literal["bilinear", "bicubic", "bicubic_antialias"]


class VisionTower(nn.Module):
    """The parts of a CLIP vision transformer: `embed`, `blocks`, `to_joint`.

    The model runs them, since Crane has two streams through the blocks.

    Args:
        tower: A vision transformer of open_clip with a class token.
        mean: Channel means of the weights' training, for RGB in [0, 1].
        std: Channel standard deviations, likewise.

    Raises:
        UsageError: The tower has no class token (it pools or averages patches instead).
    """

    blocks: Sequence[Block]
    mean: Tensor
    std: Tensor

    def __init__(self, tower: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        from open_clip.transformer import VisionTransformer

        super().__init__()
        if not isinstance(tower, VisionTransformer):
            raise UsageError(
                f"the backbone's vision tower is a {type(tower).__name__}; Crane needs a vision "
                "transformer of open_clip with a class token",
                key="backbone",
            )
        if tower.attn_pool is not None or tower.pool_type != "tok" or tower.final_ln_after_pool:
            pooling = "by attention" if tower.attn_pool is not None else repr(tower.pool_type)
            raise UsageError(
                f"the backbone's vision tower pools its patches ({pooling}); Crane needs one "
                "whose class token embeds the image",
                key="backbone",
            )
        self.conv, self.ln_pre, self.ln_post = tower.conv1, tower.ln_pre, tower.ln_post
        self.class_token = tower.class_embedding
        self.positions = tower.positional_embedding
        self.projection = tower.proj
        blocks = nn.ModuleList(Block(block) for block in tower.transformer.resblocks)
        self.blocks = cast(Sequence[Block], blocks)
        self.position_grid: tuple[int, int] = tuple(tower.grid_size)
        self.patch_size: tuple[int, int] = tuple(tower.patch_size)
        self.register_buffer("mean", torch.tensor(list(mean)).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(list(std)).view(3, 1, 1), persistent=False)

    @property
    def joint_width(self) -> int:
        """E, the width that images and texts share."""
        return int(self.projection.shape[1])

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of patches in an image of height x width pixels.

        Raises:
            UsageError: The size is not a multiple of the patch.
        """
        rows, columns = self.patch_size
        if height % rows or width % columns or not height or not width:
            raise UsageError(
                f"must be a multiple of the {rows}x{columns} patch, not {height}x{width}",
                key="image_size",
            )
        return height // rows, width // columns

    def embed(
        self, images: Float[Tensor, "B 3 H W"], resize: PositionResize = "bilinear"
    ) -> Float[Tensor, "B T D"]:
        """Turn images (RGB in [0, 1]) into h_0: class token and patches with positions.

        Args:
            images: The images.
            resize: How positions reach another grid of patches, see `positions_for`.
        """
        grid = self.grid(*images.shape[-2:])
        patches = self.conv((images - self.mean) / self.std).flatten(2).transpose(1, 2)
        class_token = self.class_token.to(patches.dtype).expand(images.shape[0], 1, -1)
        tokens = torch.cat([class_token, patches], dim=1) + self.positions_for(grid, resize)
        embedded: Tensor = self.ln_pre(tokens)
        return embedded

    def positions_for(
        self, grid: tuple[int, int], resize: PositionResize = "bilinear"
    ) -> Float[Tensor, "T D"]:
        """Position embeddings for a grid of patches; the class token's position stays.

        Args:
            grid: Rows and columns of patches.
            resize: Interpolation for grids other than the tower's own, always with
                align_corners=False: `bilinear` (Crane, AnomalyCLIP), `bicubic` (AdaCLIP) or
                `bicubic_antialias` (VAND). Antialiasing changes torch's bicubic kernel (a = -0.5
                instead of -0.75), so the two differ even when a grid grows.
        """
        if grid == self.position_grid:
            return self.positions
        own = self.positions[1:].T.unflatten(1, self.position_grid).unsqueeze(0)
        resized = F.interpolate(
            own,
            size=grid,
            mode=resize.removesuffix("_antialias"),
            align_corners=False,
            antialias=resize.endswith("_antialias"),
        )
        return torch.cat([self.positions[:1], resized[0].flatten(1).T])

    def to_joint(self, tokens: Float[Tensor, "B T D"]) -> Float[Tensor, "B T E"]:
        """Project tokens into the space shared with texts: LN_post(x) · proj."""
        joint: Tensor = self.ln_post(tokens) @ self.projection
        return joint
