"""How far embeddings agree with the normal and the anomalous sentence."""

from jaxtyping import Float
from torch import Tensor

from crane.scoring.precision import full_precision, widened


def similarity_logits(
    embeddings: Float[Tensor, "*M B N E"], text: Float[Tensor, "T 2 E"], temperature: float
) -> Float[Tensor, "*M B N 2"]:
    """Cosine similarities to [t_n, t_a], divided by the temperature; in float32 at least.

    Args:
        embeddings: Unit-norm embeddings, N of each image.
        text: Unit-norm sentences: a pair for each image (T = B), or one for all (T = 1).
        temperature: What similarities are divided by: 0.07 for maps and scores, 0.01 in the image
            loss (spec, "Maps and scores", "Training").
    """
    with full_precision(embeddings.device):
        embeddings, text = widened(embeddings, text)
        return embeddings @ text.transpose(1, 2).to(embeddings.dtype) / temperature
