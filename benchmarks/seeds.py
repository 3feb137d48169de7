"""What several seeds say together."""

import numpy as np
from scipy import stats

__all__ = ["interval"]


def interval(values: list[float], digits: int = 3) -> str:
    """Mean and 95% interval over seeds, by Student's t; of one value, the value."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return f"{mean:.{digits}f}"
    half = float(stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values)))
    return f"{mean:.{digits}f} [{mean - half:.{digits}f}, {mean + half:.{digits}f}]"
