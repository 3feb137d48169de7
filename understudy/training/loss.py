"""The loss: labels, and what the teacher says.

(1 − α) · CE(labels) + α · τ² · KL(teacher ‖ student), per head (G. Hinton, O. Vinyals, J. Dean,
"Distilling the Knowledge in a Neural Network", 2015). Where the teacher does not act on a row and
head, that entry learns from its label alone; where a label is unknown, from the teacher alone.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["distillation_loss"]


def distillation_loss(
    logits_BH: Tensor,
    labels_BH: Tensor,
    teacher_BH: Tensor,
    weights_B: Tensor,
    *,
    alpha: float,
    temperature: float,
) -> Tensor:
    """Weighted mean over rows of the sum over heads.

    Args:
        labels_BH: 0 or 1; NaN where unknown.
        teacher_BH: logits; NaN where the teacher does not act.
        weights_B: mean 1 over the whole training set; not normalised per batch.
    """
    labelled, taught = ~torch.isnan(labels_BH), ~torch.isnan(teacher_BH)
    hard = F.binary_cross_entropy_with_logits(logits_BH, torch.nan_to_num(labels_BH), reduction="none")
    share = torch.where(taught, alpha, 0.0)
    loss_BH = (1 - share) * torch.where(labelled, hard, 0.0)
    if alpha > 0:
        soft_teacher = torch.sigmoid(torch.nan_to_num(teacher_BH) / temperature)
        soft = F.binary_cross_entropy_with_logits(logits_BH / temperature, soft_teacher, reduction="none")
        entropy = F.binary_cross_entropy(soft_teacher, soft_teacher, reduction="none")
        loss_BH = loss_BH + share * temperature**2 * (soft - entropy)
    return (loss_BH.sum(1) * weights_B).mean()
