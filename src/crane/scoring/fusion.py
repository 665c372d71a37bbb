"""Local-to-global fusion: the image's embedding, moved towards its most anomalous patches."""

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from crane.scoring.precision import full_precision, widened
from crane.types import ANOMALOUS


def fuse(
    global_: Float[Tensor, "B E"],
    patches: Float[Tensor, "M B N E"],
    logits: Float[Tensor, "M B N 2"],
    weight: float,
) -> Float[Tensor, "B E"]:
    """g⁺ = unit(weight · c + (1 − weight) · g) (paper section 3.5; spec, "Maps and scores").

    c = unit(Σ_i w_i p_i), where p_i is the mean over local embeddings of the i-th unit-norm patch,
    and w_i its anomalous probability under the mean of its logits.

    Args:
        global_: Unit-norm global embeddings g.
        patches: Unit-norm patches of each local embedding.
        logits: Their similarity logits.
        weight: Share of the patches; 0.5 in the paper. 0 turns fusion off: g⁺ = g.
    """
    if weight == 0.0:
        return global_
    anomalous = logits.mean(dim=0).softmax(dim=-1)[..., ANOMALOUS]
    with full_precision(global_.device):
        global_, patches = widened(global_, patches)
        weighted = anomalous.to(patches.dtype).unsqueeze(1) @ patches.mean(dim=0)
        evidence = F.normalize(weighted.squeeze(1), dim=-1)
        return F.normalize(weight * evidence + (1.0 - weight) * global_, dim=-1)
