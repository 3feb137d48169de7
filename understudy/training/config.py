"""What the configuration says of training."""

from dataclasses import field

from understudy.ranker.config import Ranker
from understudy.section import number, section

__all__ = ["Distillation", "Training"]


@section
class Distillation:
    """What the student learns from the teacher.

    Loss per head = (1 − alpha) · CE(labels) + alpha · temperature² · KL(teacher ‖ student).

    Args:
        teacher: ``production`` or ``none``.
        alpha: weight of the teacher; 0 trains on labels alone.
        temperature: softens both sides.
        only_newer: distil only rows newer than the teacher's own window, on which it is not
            overconfident.
    """

    teacher: str = "production"
    alpha: float = number(0.5, low=0, high=1)
    temperature: float = number(1.0, low=0.1, high=100)
    only_newer: bool = True

    def __post_init__(self) -> None:
        if self.teacher not in ("production", "none"):
            raise ValueError(f"teacher: expected production or none, found {self.teacher!r}")


@section
class Training:
    """How the network is fitted.

    Args:
        epochs: at most; early stopping usually ends sooner.
        batch_size: rows per step.
        learning_rate, weight_decay: of AdamW; the rate falls to zero along a cosine.
        embedding_decay: weight decay of embeddings, which overfit first.
        patience: evaluations without improvement before training stops.
        evaluations_per_epoch: how often the early-stopping rows are scored.
        device: ``auto``, ``cpu`` or ``cuda``.
        threads: CPU threads; results depend on it, so a release names it.
        seed: of weights, order and dropout.
    """

    epochs: int = number(5, low=1, high=1000)
    batch_size: int = number(1024, low=1)
    learning_rate: float = number(1e-3, low=1e-8, high=1)
    weight_decay: float = number(1e-5, low=0)
    embedding_decay: float = number(1e-3, low=0)
    patience: int = number(2, low=1)
    evaluations_per_epoch: int = number(2, low=1, high=1000)
    device: str = "auto"
    threads: int = number(2, low=1, high=1024)
    seed: int = 0
    ranker: Ranker = field(default_factory=Ranker)
    distillation: Distillation = field(default_factory=Distillation)

    def __post_init__(self) -> None:
        if self.device not in ("auto", "cpu", "cuda"):
            raise ValueError(f"device: expected auto, cpu or cuda, found {self.device!r}")
