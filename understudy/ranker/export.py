"""The served file: preprocessing, network and calibration as one ONNX graph.

The exporter notes paths and source lines in the file; they are removed, so that the bytes, and
with them the release's digest, do not depend on the folder.
"""

import contextlib
import io
import logging
import warnings

import torch
from torch import Tensor, nn

from understudy.ranker.network import RankerModel

__all__ = ["OPSET", "export"]

OPSET = 18
_EXAMPLE_ROWS = 3


class Served(nn.Module):
    """Feeds, in the order of ``Inputs.shapes``, to probabilities and logits (B, H)."""

    def __init__(self, model: RankerModel, calibration: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.calibration = calibration
        self.names = tuple(model.inputs.shapes())

    def forward(self, *feeds: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.model(dict(zip(self.names, feeds, strict=True)))
        return self.calibration(logits), logits


def export(model: RankerModel, calibration: nn.Module) -> bytes:
    """Bytes of the ONNX file: inputs as in ``Inputs.shapes``, outputs ``probability`` and ``logit``."""
    import onnx

    served = Served(model.cpu().eval(), calibration.cpu().eval()).eval()
    shapes = model.inputs.shapes()
    example = tuple(
        torch.zeros((_EXAMPLE_ROWS, *shape), dtype=torch.int64 if kind.__name__ == "int64" else torch.float32)
        for kind, shape in shapes.values()
    )
    rows = torch.export.Dim("rows", min=1)
    exporter = logging.getLogger("torch.onnx")
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        exporter.setLevel(logging.ERROR)
        program = torch.onnx.export(
            served,
            example,
            dynamo=True,
            opset_version=OPSET,
            input_names=list(shapes),
            output_names=["probability", "logit"],
            dynamic_shapes=(tuple({0: rows} for _ in example),),
            verbose=False,
        )
    assert program is not None, "the exporter returns a program where no file is named"
    proto = program.model_proto
    _strip(proto)
    onnx.checker.check_model(proto)
    return bytes(proto.SerializeToString(deterministic=True))


def _strip(proto: "onnx.ModelProto") -> None:  # type: ignore[name-defined] # noqa: F821
    """Remove what tells where and how the graph was made."""
    graphs = [proto, proto.graph, *proto.functions]
    parts = [p for g in (proto.graph, *proto.functions) for p in (*g.node, *getattr(g, "input", []), *g.value_info)]
    parts += [*proto.graph.output, *proto.graph.initializer]
    for part in [*graphs, *parts]:
        for name in ("doc_string", "metadata_props"):
            with contextlib.suppress(ValueError):
                part.ClearField(name)
    proto.graph.name = "ranker"
