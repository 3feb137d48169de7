"""A release whose served file is at fault, to see it taken back."""

import onnx
from onnx import numpy_helper

from understudy import releases
from understudy.lake import Lake
from understudy.releases.unit import build

__all__ = ["spoiled"]

_SHIFT = "shift_H"  # of the calibration's logits


def spoiled(lake: Lake, ref: str, **sections: dict[str, object]) -> str:
    """A copy of a release that predicts e times the odds, as after a deployment of the wrong calibration.

    Args:
        sections: of its configuration, in place of its own.

    Returns:
        its digest.
    """
    release = releases.load(lake, ref)
    model = onnx.load_from_string(release.files["served.onnx"])
    (shift,) = (one for one in model.graph.initializer if one.name.endswith(_SHIFT))
    shift.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(shift) + 1.0, shift.name))
    content = {key: value for key, value in release.manifest.items() if key not in ("files", "format")}
    content["config"] = {**content["config"], **sections}
    return build(lake, content, {**release.files, "served.onnx": model.SerializeToString(deterministic=True)})
