"""Calibrators as a layer of the served file."""

import torch
from torch import Tensor, nn

from understudy.calibration.fit import MIN_SLOPE, Calibrator

__all__ = ["Calibration"]


class Calibration(nn.Module):
    """Logits (B, H) to probabilities (B, H), as ``Calibrator`` does for each head."""

    scale_H: Tensor
    shift_H: Tensor

    def __init__(self, calibrators: list[Calibrator]) -> None:
        super().__init__()
        self.register_buffer("scale_H", torch.tensor([c.scale for c in calibrators]))
        self.register_buffer("shift_H", torch.tensor([c.shift for c in calibrators]))
        self.knots = nn.ModuleList(Knots(c) if c.x else nn.Identity() for c in calibrators)

    def forward(self, logits_BH: Tensor) -> Tensor:
        mapped = torch.stack([knots(logits_BH[:, h]) for h, knots in enumerate(self.knots)], dim=1)
        return torch.sigmoid(self.scale_H * mapped + self.shift_H)


class Knots(nn.Module):
    """Straight lines between knots: the first level, then each segment's slope as far as z reaches."""

    x: Tensor
    width: Tensor
    slope: Tensor

    def __init__(self, calibrator: Calibrator) -> None:
        super().__init__()
        x = torch.tensor(calibrator.x, dtype=torch.float64)
        y = torch.tensor(calibrator.y, dtype=torch.float64)
        self.first, self.last, self.level = float(x[0]), float(x[-1]), float(y[0])
        self.register_buffer("x", x[:-1].float())
        self.register_buffer("width", (x[1:] - x[:-1]).float())
        self.register_buffer("slope", ((y[1:] - y[:-1]) / (x[1:] - x[:-1])).float())

    def forward(self, logits_B: Tensor) -> Tensor:
        reach_BK = torch.minimum((logits_B[:, None] - self.x).clamp(min=0), self.width)
        outside = (logits_B - self.first).clamp(max=0) + (logits_B - self.last).clamp(min=0)
        return self.level + (reach_BK * self.slope).sum(1) + MIN_SLOPE * outside
