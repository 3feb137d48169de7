"""What the configuration says of Spark on a cluster."""

import dataclasses

from understudy.kubeflow.step import StepSettings
from understudy.section import number, section
from understudy.spark_settings import FIXED

__all__ = ["MODES", "Spark"]

MODES = ("local", "kubernetes", "operator")


@section
class Spark:
    """Where the steps that use Spark do their work on a cluster; what they write is the same everywhere.

    Args:
        mode: ``local``: in the step's pod; ``kubernetes``: the step's pod drives, and its executors are pods;
            ``operator``: the step is done by a SparkApplication, whose operator makes the pods of driver and executors.
        executors: pods beside the driver's, where the mode is not local.
        executor: settings of their pods, on top of the step's; ``cpu`` and ``memory`` are of one executor.
        service_account: of the pods that ask for executors; empty: that of the runs.
        conf: more settings of Spark, by their own names, where the mode is not local.
    """

    mode: str = "local"
    executors: int = number(2, low=1, high=1000)
    executor: StepSettings = dataclasses.field(default_factory=lambda: StepSettings(cpu="2", memory="8Gi"))
    service_account: str = ""
    conf: dict[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"mode: expected {', '.join(MODES[:-1])} or {MODES[-1]}, found {self.mode!r}")
        for name, value in (("cpu", self.executor.cpu), ("memory", self.executor.memory)):
            if not value:
                raise ValueError(f"executor.{name}: expected a value, found none; give cpu and memory of one executor")
        for key in self.conf:
            if not key.startswith("spark."):
                raise ValueError(f"conf: expected names that begin with spark., found {key!r}")
            if key in FIXED:
                raise ValueError(f"conf: expected none that decides what tables hold, found {key!r}; remove it")
        if self.conf and self.mode == "local":
            raise ValueError("conf: expected none with mode local, found some; set mode, or remove conf")
