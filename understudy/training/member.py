"""Members of an ensemble, trained at once: on a CPU each in a process of its own, by one thread.

A small network keeps one core busy and gains little from a second, so processes side by side finish sooner, and a
member's weights do not depend on how many they are. The rows lie in one file that every process maps. Members that are
done stay in the lake until the step commits: a run that was killed trains the others.
"""

import concurrent.futures
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from understudy.lake import Lake
from understudy.processes import died
from understudy.ranker.files import from_files, to_files
from understudy.ranker.network import RankerModel
from understudy.section import canonical_json, from_json
from understudy.training.batches import Rows
from understudy.training.checkpoint import Checkpoints, checkpoint_key, metadata
from understudy.training.config import Training
from understudy.training.ensemble import Lesson, Member, Spoken, learn, members_of

__all__ = ["learn_all"]

_FILES = ("model.safetensors", "model.json", "inputs.json")
_ROWS = "rows.safetensors"
_TASK = "task.json"


def learn_all(
    base: RankerModel, config: Training, lesson: Lesson, checkpoints: Checkpoints, say: Callable[[str], None]
) -> list[Spoken]:
    """Every member of the ensemble, in order.

    Args:
        base: a network whose preprocessing all share.
        checkpoints: a folder and a key for the members'; each has a folder below.
        say: tells of progress.
    """
    members = members_of(config)
    started = time.monotonic()
    done: list[Spoken | None] = [_read(checkpoints, member) for member in members]
    missing = [member for member, spoken in zip(members, done, strict=True) if spoken is None]
    say(f"an ensemble of {len(members)} members, {len(members) - len(missing)} of them trained before")

    def told(member: Member, spoken: Spoken) -> None:
        done[member.number] = spoken
        ready = sum(one is not None for one in done)
        seconds = time.monotonic() - started
        say(f"member {member.name}: stop loss {spoken.stop_loss:.4f}; {ready} of {len(members)}, {seconds:.0f} s")

    if lesson.train.device.type == "cpu":
        _in_processes(base, config, lesson, checkpoints, missing, told)
    else:
        for member in missing:
            told(member, _learn_and_keep(base, config, lesson, checkpoints, member))
    assert all(one is not None for one in done), "a member that fails raises"
    return [one for one in done if one is not None]


def _in_processes(
    base: RankerModel,
    config: Training,
    lesson: Lesson,
    checkpoints: Checkpoints,
    members: list[Member],
    told: Callable[[Member, Spoken], None],
) -> None:
    workers = max(1, min(config.ensemble.processes or config.threads, len(members)))
    if not members:
        return
    with (
        tempfile.TemporaryDirectory(prefix="understudy-ensemble-") as folder,
        concurrent.futures.ThreadPoolExecutor(workers) as pool,
    ):
        _hand_over(Path(folder), base, config, lesson, checkpoints)
        waiting = {pool.submit(_work, folder, member.number): member for member in members}
        try:
            for future in concurrent.futures.as_completed(waiting):
                future.result()
                spoken = _read(checkpoints, waiting[future])
                assert spoken is not None, "a process that ends well has kept its member"
                told(waiting[future], spoken)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _work(folder: str, number: int) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "understudy.training.member", folder, str(number)]
    done = subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False)
    if done.returncode:
        wrote = done.stderr.decode(errors="replace")
        raise died(f"ensemble, member {number:02d}", "it to be trained", done.returncode, wrote)


def _hand_over(folder: Path, base: RankerModel, config: Training, lesson: Lesson, checkpoints: Checkpoints) -> None:
    for name, data in to_files(base).items():
        (folder / name).write_bytes(data)
    parts = (("train", lesson.train), ("stop", lesson.stop), ("last", lesson.last))
    tensors = {f"{part}.{name}": tensor for part, rows in parts for name, tensor in _flat(rows).items()}
    tensors |= {"fold": lesson.fold_B, "age": lesson.age_B}
    safetensors.torch.save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / _ROWS)
    task = {"training": dataclasses.asdict(config), "lake": checkpoints.lake.uri()}
    task |= {"folder": checkpoints.folder, "key": checkpoints.key}
    (folder / _TASK).write_text(canonical_json(task))


def _flat(rows: Rows) -> dict[str, Tensor]:
    own = {f.name: getattr(rows, f.name) for f in dataclasses.fields(rows) if f.name not in ("feeds", "teacher")}
    return own | {f"feeds.{name}": tensor for name, tensor in rows.feeds.items()}


def _rows(tensors: dict[str, Tensor], part: str) -> Rows:
    own = {name.removeprefix(f"{part}."): tensor for name, tensor in tensors.items() if name.startswith(f"{part}.")}
    feeds = {name.removeprefix("feeds."): own.pop(name) for name in list(own) if name.startswith("feeds.")}
    return Rows(feeds=feeds, **own)


def _main(folder: Path, number: int) -> None:
    torch.set_num_threads(1)
    task = json.loads((folder / _TASK).read_text())
    config = from_json(Training, canonical_json(task["training"]), "training")
    base = from_files({name: (folder / name).read_bytes() for name in _FILES})
    tensors = safetensors.torch.load_file(folder / _ROWS)
    train, stop, last = (_rows(tensors, part) for part in ("train", "stop", "last"))
    lesson = Lesson(train, stop, last, tensors["fold"], tensors["age"])
    checkpoints = Checkpoints(Lake.open(task["lake"]), task["folder"], task["key"])
    _learn_and_keep(base, config, lesson, checkpoints, members_of(config)[number])


def _learn_and_keep(
    base: RankerModel, config: Training, lesson: Lesson, checkpoints: Checkpoints, member: Member
) -> Spoken:
    own = Checkpoints(
        checkpoints.lake,
        f"{checkpoints.folder}/members/{member.name}",
        checkpoint_key({"of": checkpoints.key, "member": member.name}),
    )
    spoken = learn(base, member, config, lesson, own)
    tensors = {"train": spoken.train.contiguous(), "last": spoken.last.contiguous()}
    tensors |= {name: torch.frombuffer(bytearray(data), dtype=torch.uint8) for name, data in spoken.files.items()}
    kept = safetensors.torch.save(tensors, {"key": own.key, "stop_loss": repr(spoken.stop_loss)})
    own.lake.replace(_done(checkpoints, member), kept)
    own.lake.remove(own.folder)
    return spoken


def _done(checkpoints: Checkpoints, member: Member) -> str:
    return f"{checkpoints.folder}/done/{member.name}-{checkpoints.key[:16]}.safetensors"


def _read(checkpoints: Checkpoints, member: Member) -> Spoken | None:
    """A member that was trained before, or None."""
    path = _done(checkpoints, member)
    if not checkpoints.lake.exists(path):
        return None
    data = checkpoints.lake.read_bytes(path)
    tensors = safetensors.torch.load(data)
    loss = float(metadata(data)["stop_loss"])
    files = {name: tensors[name].numpy().tobytes() for name in _FILES}
    return Spoken(tensors["train"], tensors["last"], files, loss)


if __name__ == "__main__":
    _main(Path(sys.argv[1]), int(sys.argv[2]))
