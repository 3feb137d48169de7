"""The loss: labels, and what the teacher says.

(1 − α) · CE(labels) + α · τ² · KL(teacher ‖ student), per head (G. Hinton, O. Vinyals, J. Dean,
"Distilling the Knowledge in a Neural Network", 2015). Where the teacher does not act on a row and
head, that entry learns from its label alone; where a label is unknown, from the teacher alone.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["auxiliary_loss", "distillation_loss", "label_loss"]


def label_loss(logits_BH: Tensor, labels_BH: Tensor, weights_B: Tensor) -> Tensor:
    """Weighted mean over rows of the cross entropy's sum over heads.

    Args:
        labels_BH: 0 or 1; NaN where unknown.
        weights_B: mean 1 over the whole training set; not normalised per batch.
    """
    return (_hard(logits_BH, labels_BH).sum(1) * weights_B).mean()


def distillation_loss(
    logits_BH: Tensor,
    labels_BH: Tensor,
    teacher_BH: Tensor,
    weights_B: Tensor,
    traffic_B: Tensor,
    *,
    alpha_H: Tensor,
    temperature_H: Tensor,
) -> Tensor:
    """Labels and teacher on the same logits.

    Args:
        labels_BH: 0 or 1; NaN where unknown.
        teacher_BH: logits; NaN where the teacher does not act.
        weights_B: of the labels, mean 1 over the whole training set: sample weight × importance.
        traffic_B: of the teacher, mean 1: sample weight alone.
    """
    share_BH = torch.where(torch.isnan(teacher_BH), 0.0, alpha_H)
    hard_B = ((1 - share_BH) * _hard(logits_BH, labels_BH)).sum(1)
    soft_B = (share_BH * _soft(logits_BH, teacher_BH, temperature_H)).sum(1)
    return (hard_B * weights_B + soft_B * traffic_B).mean()


def auxiliary_loss(
    logits_BH: Tensor, teacher_BH: Tensor, traffic_B: Tensor, *, alpha_H: Tensor, temperature_H: Tensor
) -> Tensor:
    """The teacher alone, on logits of its own; it comes on top of ``label_loss`` of the served ones."""
    share_BH = torch.where(torch.isnan(teacher_BH), 0.0, alpha_H)
    return ((share_BH * _soft(logits_BH, teacher_BH, temperature_H)).sum(1) * traffic_B).mean()


def _hard(logits_BH: Tensor, labels_BH: Tensor) -> Tensor:
    loss = F.binary_cross_entropy_with_logits(logits_BH, torch.nan_to_num(labels_BH), reduction="none")
    return torch.where(torch.isnan(labels_BH), 0.0, loss)


def _soft(logits_BH: Tensor, teacher_BH: Tensor, temperature_H: Tensor) -> Tensor:
    """τ² · KL(teacher ‖ student)."""
    said_BH = torch.nan_to_num(teacher_BH) / temperature_H
    p_BH = torch.sigmoid(said_BH)
    cross = F.binary_cross_entropy_with_logits(logits_BH / temperature_H, p_BH, reduction="none")
    entropy = F.binary_cross_entropy_with_logits(said_BH, p_BH, reduction="none")
    return temperature_H**2 * (cross - entropy)
