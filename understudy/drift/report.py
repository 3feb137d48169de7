"""Evidently's report on a sample, as a page for people."""

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["write_page"]


def write_page(columns: dict[str, npt.NDArray[Any]], new: npt.NDArray[np.bool_], rows: int) -> bytes:
    """HTML that compares new rows with the others.

    Args:
        columns: name → values (n,).
        new: which rows are new.
        rows: at most so many of each side, evenly spaced.
    """
    os.environ["DO_NOT_TRACK"] = "1"
    import pandas as pd
    from evidently import Report
    from evidently.presets import DataDriftPreset

    frames = []
    for side in (new, ~new):
        at = np.flatnonzero(side)
        at = at[np.linspace(0, len(at) - 1, min(rows, len(at))).astype(np.int64)] if len(at) else at
        frame = pd.DataFrame({name: values[at] for name, values in columns.items()})
        frames.append(frame)
    usable = [name for name in columns if all(frame[name].notna().any() for frame in frames)]
    result = Report([DataDriftPreset()]).run(frames[0][usable], frames[1][usable])
    with tempfile.TemporaryDirectory(prefix="understudy-drift-") as folder:
        page = Path(folder, "drift.html")
        result.save_html(str(page))
        return page.read_bytes()
