"""``train_ranker`` by several processes, each with an accelerator of its own, or a core where there are none.

``torchrun`` starts them: on one machine by ourselves, on several by a TrainJob. The first one is the step; the others
do their share of what it fits, and write nothing.
"""

import contextlib
import datetime
import os
import subprocess
import sys
from collections.abc import Iterator

import torch
import torch.distributed as dist

from understudy.errors import UnderstudyError, first_line
from understudy.processes import how_it_ended
from understudy.training.parallel import agreed, is_first
from understudy.training.step import accompany, is_committed, run

__all__ = ["main"]

_PATIENCE = datetime.timedelta(hours=1)  # the first one encodes and scores while others wait


def main(arguments: list[str]) -> int:
    """Do one process's part; returns the exit code.

    Args:
        arguments: lake, run id, section.
    """
    if len(arguments) != 3:
        print(f"error: expected LAKE RUN_ID SECTION, found {len(arguments)} arguments", file=sys.stderr)
        return 2
    try:
        with _group():
            done = _all_know(is_committed(*arguments[:2]))
            if is_first():
                run(*arguments)
            elif not done:
                accompany(*arguments)
    except UnderstudyError as error:
        if is_first():
            print(f"error: {first_line(error)}", file=sys.stderr)
        return error.exit_code
    return 0


def start(lake: str, run_id: str, section: str, processes: int) -> None:
    """Have the step done by several processes of this machine.

    Raises:
        UnderstudyError: one of them failed; what it said stands in the run's record.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    environ = {"OMP_NUM_THREADS": "1", **os.environ}  # else torchrun says at length that it sets it
    done = subprocess.run(
        [*command, "-m", "understudy.training.workers", lake, run_id, section], env=environ, check=False
    )
    if done.returncode and not is_committed(lake, run_id):
        raise UnderstudyError(
            f"train_ranker: expected {processes} processes to end well, found that their parent "
            f"{how_it_ended(done.returncode)}; what they wrote stands above"
        )


def _all_know(done: bool) -> bool:
    """What the first process has seen: else some would wait for others that have nothing to do."""
    return bool(agreed(float(done), torch.device("cuda" if torch.cuda.is_available() else "cpu")))


@contextlib.contextmanager
def _group() -> Iterator[None]:
    """The group of processes that ``torchrun`` has started; alone without it."""
    if "WORLD_SIZE" not in os.environ:
        yield
        return
    has_gpu = torch.cuda.is_available()
    if has_gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if has_gpu else "gloo", timeout=_PATIENCE)
    try:
        yield
    finally:
        dist.destroy_process_group()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
