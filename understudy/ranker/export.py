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

from understudy.inputs import PER_REQUEST
from understudy.ranker.network import RankerModel

__all__ = ["OPSET", "export"]

OPSET = 18
_EXAMPLE = (3, 2)  # requests, candidates of each


class Served(nn.Module):
    """Feeds of R requests of M candidates, in the order of ``Inputs.shapes``, to probabilities and logits (R, M, H).

    A feed of ``PER_REQUEST`` has R rows, every other R × M.
    """

    def __init__(self, model: RankerModel, calibration: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.calibration = calibration
        self.names = tuple(model.inputs.shapes())

    def forward(self, *feeds: Tensor) -> tuple[Tensor, Tensor]:
        named = dict(zip(self.names, feeds, strict=True))
        shape = named["hour"].shape
        flat = {name: feed if name in PER_REQUEST else feed.flatten(0, 1) for name, feed in named.items()}
        logits = self.model(flat)
        return self.calibration(logits).unflatten(0, shape), logits.unflatten(0, shape)


def export(model: RankerModel, calibration: nn.Module) -> bytes:
    """Bytes of the ONNX file: inputs and outputs as in ``Served``, the outputs named ``probability`` and ``logit``."""
    import onnx

    served = Served(model.cpu().eval(), calibration.cpu().eval()).eval()
    shapes = model.inputs.shapes()
    requests, candidates = torch.export.Dim("requests", min=1), torch.export.Dim("candidates", min=1)
    dynamic = tuple({0: requests} if name in PER_REQUEST else {0: requests, 1: candidates} for name in shapes)
    example = tuple(
        torch.zeros(
            (*(_EXAMPLE[:1] if name in PER_REQUEST else _EXAMPLE), *shape),
            dtype=torch.int64 if kind.__name__ == "int64" else torch.float32,
        )
        for name, (kind, shape) in shapes.items()
    )
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
            dynamic_shapes=(dynamic,),
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
