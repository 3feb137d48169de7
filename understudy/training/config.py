"""What the configuration says of training."""

from dataclasses import field

from understudy.ranker.config import Ranker
from understudy.section import number, placed, section

__all__ = ["Distillation", "Ensemble", "HeadDistillation", "Training", "Variant"]


@section
class HeadDistillation:
    """What one head takes from the teacher.

    Args:
        alpha, temperature: of this head; None: those of all heads.
    """

    alpha: float | None = number(None, low=0, high=1)
    temperature: float | None = number(None, low=0.1, high=100)


@section
class Distillation:
    """What the student learns from the teacher.

    Loss per head = (1 − alpha) · CE(labels) + alpha · temperature² · KL(teacher ‖ student). The first term carries
    the row's sample weight and importance, the second its sample weight alone.

    Args:
        teacher: ``production``, ``ensemble`` (trained in the run itself, see ``ensemble``) or ``none``.
        head: where the teacher acts: ``served``, on the logit that is served; ``auxiliary``, on a second logit of
            the same network that nobody serves, which leaves the first to the labels alone.
        alpha: weight of the teacher; 0 trains on labels alone.
        fade: share of alpha that is left at the end of training, reached along a straight line; 1 keeps it.
        temperature: softens both sides.
        heads: head → its own alpha and temperature.
        only_newer: distil only rows newer than the teacher's own window, on which it is not
            overconfident. An ensemble scores each row by members that did not see it.
        give_up_after: controls in a row without a gain, after which distillation stays off, with a warning, until
            this section changes; 0: never.
    """

    teacher: str = "production"
    head: str = "served"
    alpha: float = number(0.5, low=0, high=1)
    fade: float = number(1.0, low=0, high=1)
    temperature: float = number(1.0, low=0.1, high=100)
    heads: dict[str, HeadDistillation] = field(default_factory=dict)
    only_newer: bool = True
    give_up_after: int = number(3, low=0, high=1000)

    def __post_init__(self) -> None:
        if self.teacher not in ("production", "ensemble", "none"):
            raise ValueError(f"teacher: expected production, ensemble or none, found {self.teacher!r}")
        if self.head not in ("served", "auxiliary"):
            raise ValueError(f"head: expected served or auxiliary, found {self.head!r}")

    def of(self, heads: tuple[str, ...]) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Alpha and temperature of each head, in their order."""
        own = [self.heads.get(head, HeadDistillation()) for head in heads]
        alphas = tuple(self.alpha if one.alpha is None else one.alpha for one in own)
        return alphas, tuple(self.temperature if one.temperature is None else one.temperature for one in own)


@section
class Variant:
    """In what a member of an ensemble differs from the student. None: as the student.

    Args:
        hidden, cross_layers, id_dimension: of its network.
        ids: whether it knows users, items, creators and topics by their names.
        feature_share: share of the numbers that it reads, drawn by its seed.
        day_share: share of the training days that it learns from, the newest.
    """

    hidden: tuple[int, ...] | None = None
    cross_layers: int | None = number(None, low=0, high=16)
    id_dimension: int | None = number(None, low=1, high=1024)
    ids: bool = True
    feature_share: float = number(1.0, low=0.05, high=1)
    day_share: float = number(1.0, low=0.05, high=1)


_VARIANTS = (
    Variant(),
    Variant(hidden=(256, 128)),
    Variant(ids=False),
    Variant(cross_layers=0),
    Variant(feature_share=0.8),
    Variant(hidden=(64, 64, 64), cross_layers=1),
    Variant(day_share=0.75),
    Variant(hidden=(512, 256)),
)


@section
class Ensemble:
    """The teacher ``ensemble``: several networks, trained in the run, each on all folds of the rows but one.

    Args:
        members: how many. A row is taught by those that did not see it, members / folds of them.
        folds: by hash of the request.
        processes: members that are trained at once on a CPU, each by one thread; 0: as many as ``threads``.
        variants: what the members are like, in turn; members of one variant differ in seed and fold.
    """

    members: int = number(12, low=2, high=1000)
    folds: int = number(4, low=2, high=100)
    processes: int = number(0, low=0, high=1024)
    variants: tuple[Variant, ...] = _VARIANTS

    def __post_init__(self) -> None:
        if self.members < self.folds:
            raise ValueError(f"members: expected at least as many as folds ({self.folds}), found {self.members}")
        if not self.variants:
            raise ValueError("variants: expected at least one, found none; remove the key for the default ones")


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
        block_rows: rows that the loader mixes at a time, where ``sampling.mode`` is ``loader``; memory grows with it.
        device: ``auto``, ``cpu`` or ``cuda``.
        threads: CPU threads; results depend on it, so a release names it.
        seed: of weights, order and dropout.
        control_every: every so many runs a control is trained beside the student, alike in all but the teacher, which
            shows what the teacher was worth; 0: never.
        mode: on a cluster, ``pod``: in the step's pod, with a process for each of its accelerators; ``trainjob``: as a
            TrainJob of Kubeflow Trainer.
        nodes: pods of the TrainJob. runtime: the ClusterTrainingRuntime that it follows.
    """

    epochs: int = number(5, low=1, high=1000)
    batch_size: int = number(1024, low=1)
    learning_rate: float = number(1e-3, low=1e-8, high=1)
    weight_decay: float = number(1e-5, low=0)
    embedding_decay: float = number(1e-3, low=0)
    patience: int = number(2, low=1)
    evaluations_per_epoch: int = number(2, low=1, high=1000)
    block_rows: int = number(65_536, low=1)
    device: str = "auto"
    threads: int = number(2, low=1, high=1024)
    seed: int = 0
    control_every: int = number(4, low=0, high=1000)
    ranker: Ranker = field(default_factory=Ranker)
    distillation: Distillation = field(default_factory=Distillation)
    ensemble: Ensemble = field(default_factory=Ensemble)
    mode: str = placed("pod")
    nodes: int = number(1, low=1, high=1024, is_placed=True)
    runtime: str = placed("torch-distributed")

    def __post_init__(self) -> None:
        if self.mode not in ("pod", "trainjob"):
            raise ValueError(f"mode: expected pod or trainjob, found {self.mode!r}")
        if self.mode == "pod" and self.nodes > 1:
            raise ValueError(f"nodes: expected 1 with mode pod, found {self.nodes}; set mode: trainjob")
        if self.device not in ("auto", "cpu", "cuda"):
            raise ValueError(f"device: expected auto, cpu or cuda, found {self.device!r}")
