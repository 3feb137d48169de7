"""Write the pipeline as the file that Kubeflow Pipelines accepts."""

from pathlib import Path

from kfp import compiler

from pipelines.retraining import retraining
from understudy.config import Config

__all__ = ["compile_pipeline"]


def compile_pipeline(config: Config, path: str | Path) -> None:
    """Compile the retraining pipeline for a configuration into a YAML file."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    compiler.Compiler().compile(retraining(config), str(path))
