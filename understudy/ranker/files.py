"""A network as files: weights in safetensors, shape in JSON. No pickle."""

import dataclasses
import json

import safetensors.torch

from understudy.errors import BadInput
from understudy.inputs import Inputs
from understudy.ranker.config import Ranker
from understudy.ranker.network import RankerModel, Sizes
from understudy.section import canonical_json, from_json

__all__ = ["from_files", "to_files"]


_TRAINING_ONLY = "network.auxiliary."


def to_files(model: RankerModel) -> dict[str, bytes]:
    """``model.safetensors``, ``model.json`` and ``inputs.json``; equal models give equal bytes."""
    shape = {"ranker": dataclasses.asdict(model.config), "sizes": dataclasses.asdict(model.sizes)}
    state = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith(_TRAINING_ONLY)}
    weights = {name: tensor.cpu().contiguous() for name, tensor in state.items()}
    return {
        "model.safetensors": safetensors.torch.save(weights),
        "model.json": canonical_json(shape).encode(),
        "inputs.json": model.inputs.to_json().encode(),
    }


def from_files(files: dict[str, bytes]) -> RankerModel:
    """Read back what ``to_files`` wrote.

    Raises:
        BadInput: weights and shape do not belong together.
    """
    shape = json.loads(files["model.json"])
    config = from_json(Ranker, canonical_json(shape["ranker"]), "training.ranker", "model.json")
    inputs = Inputs.from_json(files["inputs.json"].decode())
    model = RankerModel(config, inputs, Sizes(**shape["sizes"]))
    try:
        model.load_state_dict(safetensors.torch.load(files["model.safetensors"]))
    except (RuntimeError, safetensors.SafetensorError) as error:
        raise BadInput(
            "model.safetensors: expected the weights that model.json describes, found others; use files of one release"
        ) from error
    return model.eval()
