"""Score rows with the very file that serving loads. No torch here."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from understudy.errors import BadInput
from understudy.inputs import PER_REQUEST, Feeds, Inputs

__all__ = ["Served"]

Floats = npt.NDArray[np.float32]

_BATCH = 4096


class Served:
    """The exported model in ONNX Runtime.

    Args:
        model: bytes of ``served.onnx``.
        inputs: of the same release.
        threads: CPU threads; spinning is off.
    """

    def __init__(self, model: bytes, inputs: Inputs, *, threads: int = 2) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self.session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise BadInput(
                "served.onnx: expected a model that ONNX Runtime can load, found none; use a release's own"
            ) from error
        self.inputs = inputs
        self._known = {node.name for node in self.session.get_inputs()}

    def score(self, table: pa.Table) -> tuple[Floats, Floats]:
        """Probabilities and uncalibrated logits, each (B, H), of rows at their logged position."""
        parts = [self.score_feeds(self.inputs.encode(batch)) for batch in _batches(table)]
        return np.concatenate([p for p, _ in parts]), np.concatenate([z for _, z in parts])

    def score_feeds(self, feeds: Feeds) -> tuple[Floats, Floats]:
        """The same, of feeds that are encoded already: R requests of B / R candidates, in order."""
        rows, requests = len(feeds["hour"]), len(feeds[PER_REQUEST[0]])
        known: dict[str, Any] = {
            name: array if name in PER_REQUEST else array.reshape(requests, rows // requests, *array.shape[1:])
            for name, array in feeds.items()
            if name in self._known
        }
        probability, logit = self.session.run(["probability", "logit"], known)
        return np.asarray(probability).reshape(rows, -1), np.asarray(logit).reshape(rows, -1)


def _batches(table: pa.Table) -> Iterator[pa.Table]:
    for start in range(0, max(1, table.num_rows), _BATCH):
        yield table.slice(start, _BATCH)
