"""Checkpoints: one safetensors file per evaluation, with JSON in its metadata. No pickle.

A file holds the weights, the best weights so far, AdamW's state and the random state, so that
training goes on from it to the same result. It names what it belongs to; others are ignored.
"""

import hashlib
import json
from dataclasses import dataclass

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from understudy.lake import Lake
from understudy.ranker.network import RankerModel
from understudy.training.loop import State

__all__ = ["Checkpoints", "checkpoint_key", "metadata"]

_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one training.

    Args:
        folder: in the lake.
        key: of the plan, configuration, version and device; another key's files are ignored.
    """

    lake: Lake
    folder: str
    key: str

    def save(self, state: State, model: RankerModel, optimizer: torch.optim.Optimizer) -> None:
        """Keep a checkpoint, then drop the one before it."""
        tensors = {f"weights.{name}": tensor for name, tensor in model.network.state_dict().items()}
        tensors |= {f"best.{name}": tensor for name, tensor in state.best_weights.items()}
        for index, moments in optimizer.state_dict()["state"].items():
            tensors |= {f"adamw.{index}.{name}": torch.as_tensor(moments[name]) for name in _MOMENTS}
        tensors["random.cpu"] = torch.get_rng_state()
        if torch.cuda.is_available():
            tensors["random.cuda"] = torch.cuda.get_rng_state()
        kept = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
        stand = {"evaluation": state.evaluation, "best": state.best, "curve": state.curve}
        data = safetensors.torch.save(kept, {"key": self.key, "state": json.dumps(stand)})
        before = self.lake.names(self.folder)
        name = f"{state.evaluation:06d}-{self.key[:16]}.safetensors"
        self.lake.replace(f"{self.folder}/{name}", data)
        for old in before:
            if old != name:
                self.lake.remove(self.folder, old)

    def resume(self, model: RankerModel, optimizer: torch.optim.Optimizer) -> State | None:
        """Read the newest checkpoint of this training back, or None."""
        for name in reversed(self.lake.names(self.folder)):
            if name.endswith(f"-{self.key[:16]}.safetensors"):
                state = self._load(name, model, optimizer)
                if state is not None:
                    return state
        return None

    def _load(self, name: str, model: RankerModel, optimizer: torch.optim.Optimizer) -> State | None:
        try:
            data = self.lake.read_bytes(self.folder, name)
            tensors = safetensors.torch.load(data)
            stand = json.loads(metadata(data)["state"])
        except (FileNotFoundError, SafetensorError, KeyError, ValueError):
            return None
        device = next(model.network.parameters()).device
        model.network.load_state_dict(_below(tensors, "weights."))
        groups = optimizer.state_dict()
        groups["state"] = _moments(_below(tensors, "adamw."))
        optimizer.load_state_dict(groups)
        torch.set_rng_state(tensors["random.cpu"])
        if "random.cuda" in tensors and torch.cuda.is_available():
            torch.cuda.set_rng_state(tensors["random.cuda"])
        best = {name: tensor.to(device) for name, tensor in _below(tensors, "best.").items()}
        return State(**stand, best_weights=best)


def checkpoint_key(parts: dict[str, str]) -> str:
    """Digest of what a training depends on."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _moments(tensors: dict[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, moment = name.split(".", 1)
        state.setdefault(int(index), {})[moment] = tensor
    return state


def metadata(data: bytes) -> dict[str, str]:
    """The metadata in a safetensors header: a length of 8 bytes, then JSON."""
    length = int.from_bytes(data[:8], "little")
    header: dict[str, dict[str, str]] = json.loads(data[8 : 8 + length])
    return header["__metadata__"]
