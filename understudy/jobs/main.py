"""One step as a program of its own: ``STEP LAKE RUN_ID SECTION``, for a driver that ``spark-submit`` starts."""

import importlib
import sys

from understudy.errors import UnderstudyError, first_line

__all__ = ["PACKAGES", "main"]

# step → module that does it
PACKAGES = {
    "compact_logs": "understudy.logs.compaction",
    "build_features": "understudy.features.building",
    "sample_examples": "understudy.sampling.step",
}


def main(arguments: list[str]) -> int:
    """Run the step; returns the exit code."""
    if len(arguments) != 4 or arguments[0] not in PACKAGES:
        print(f"error: expected STEP LAKE RUN_ID SECTION, found {len(arguments)} arguments", file=sys.stderr)
        return 2
    step, lake, run_id, section = arguments
    try:
        importlib.import_module(PACKAGES[step]).run(lake, run_id, section)
    except UnderstudyError as error:
        print(f"error: {first_line(error)}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
