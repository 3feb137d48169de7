"""How many events a second the collector makes durable on one core, over real HTTP, and what the keep rule saves.

The server (`understudy collect`, with its writing and flushing threads) is pinned to one core; clients send batches
that were encoded beforehand, each connection in turn, from the other cores. A request has one served event of 20
candidates with two probabilities each, ten seen events and one action; seen and done arrive a batch later than served.
Beside it the same batches are written under the keep rule and in full, and the segments' bytes are compared.
"""

import argparse
import http.client
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from understudy.cli.output import print_table
from understudy.config import Config, load
from understudy.lake import Lake
from understudy.logs.events import decode
from understudy.logs.flush import flush
from understudy.logs.journal import Journal
from understudy.snapshot import Snapshot

ROOT = Path(__file__).resolve().parent.parent
CONFIG = ROOT / "examples" / "collector.yaml"
TOKEN = "a-token-for-the-benchmark"
SERVED, SEEN = 20, 10  # candidates of a request, and how many come on screen
EVENTS = SEEN + 2  # of a request: served, seen, one action
_ITEM = '{"item_id":"item-%06d","position":%d,"p":{"click":%.6f,"save":%.6f}}'
_SEEN = '{"kind":"seen","request_id":"%s","item_id":"%s","at":%d}'
_ACTION = '{"kind":"action","request_id":"%s","item_id":"%s","action":"%s","at":%d}'


def batches(client: str, requests: int, now_us: int) -> Iterator[bytes]:
    """Bodies without end: each serves ``requests`` requests, and tells what became of the ones before."""
    random = np.random.default_rng(abs(hash(client)) % 2**32)
    number, told = 0, ""
    while True:
        served, outcomes = [], []
        for _ in range(requests):
            request, number = f"{client}-{number:012d}", number + 1
            items = ((random.integers(1_000_000) + 7919 * np.arange(SERVED)) % 1_000_000).tolist()
            p = random.random((SERVED, 2)).tolist()
            listed = ",".join(_ITEM % (item, place, *p[place]) for place, item in enumerate(items))
            served.append(
                f'{{"kind":"served","request_id":"{request}","user_id":"user-{random.integers(1_000_000)}",'
                f'"at":{now_us},"candidate_count":200,"surface":"home","release":"{"0" * 16}","items":[{listed}]}}'
            )
            seen = [f"item-{item:06d}" for item in items[:SEEN]]
            outcomes += [_SEEN % (request, item, now_us) for item in seen]
            action = "click" if random.random() < 0.5 else "expand"
            outcomes.append(_ACTION % (request, seen[random.integers(SEEN)], action, now_us))
        parts = [*served, told] if told else served
        yield f'{{"batch_id":"{client}-{number}","sent_at":{now_us},"events":[{",".join(parts)}]}}'.encode()
        told = ",".join(outcomes)


def client(port: int, name: str, requests: int, seconds: float, cores: set[int], gate: Any, results: Any) -> None:
    """One connection, kept alive: sends, waits for the answer, sends the next."""
    os.sched_setaffinity(0, cores)
    made = batches(name, requests, time.time_ns() // 1_000)
    bodies = [next(made) for _ in range(max(8, int(seconds * 12_000 / (requests * EVENTS))))]
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    gate.wait()
    start, taken_s, accepted, refused = time.monotonic(), [], 0, 0
    for body in bodies:
        sent = time.monotonic()
        connection.request("POST", "/v1/events", body, headers)
        with connection.getresponse() as response:
            answer = json.loads(response.read())
            assert response.status == 200, answer
        taken_s.append(time.monotonic() - sent)
        accepted, refused = accepted + answer["accepted"], refused + len(answer["refused"])
        if time.monotonic() - start > seconds:
            break
    results.put((accepted, refused, start, time.monotonic(), taken_s))


def throughput(folder: Path, *, seconds: float, connections: int, requests: int) -> dict[str, float]:
    """Load one pinned server, and look how far its segments have come when the load ends."""
    port, process = _server(folder)
    others = os.sched_getaffinity(0) - {_CORE} or {_CORE}
    context = multiprocessing.get_context("spawn")
    gate, results = context.Barrier(connections), context.Queue()
    clients = [
        context.Process(target=client, args=(port, f"c{i}", requests, seconds, others, gate, results))
        for i in range(connections)
    ]
    for one in clients:
        one.start()
    used_s = _cpu_s(process.pid)
    found = [results.get(timeout=seconds * 10 + 120) for _ in clients]
    written, used_s = _lake_rows(folder), _cpu_s(process.pid) - used_s
    for one in clients:
        one.join()
    stopped = time.monotonic()
    process.terminate()
    process.wait(120)
    rest_s = time.monotonic() - stopped
    accepted, refused = sum(one[0] for one in found), sum(one[1] for one in found)
    assert refused == 0, f"{refused} events were refused"
    taken_s = np.concatenate([one[4] for one in found])
    return {
        "events": accepted,
        "events_per_s": accepted / (max(one[3] for one in found) - min(one[2] for one in found)),
        "p50_ms": float(np.quantile(taken_s, 0.5)) * 1e3,
        "p99_ms": float(np.quantile(taken_s, 0.99)) * 1e3,
        "batches": len(taken_s),
        "cpu_us": used_s / accepted * 1e6,
        "in_lake": written / max(1, _lake_rows(folder)),
        "rest_s": rest_s,
    }


_CORE = min(os.sched_getaffinity(0))


def _server(folder: Path) -> tuple[int, "subprocess.Popen[str]"]:
    command = [sys.executable, "-m", "understudy.cli", "collect", "--config", str(CONFIG), "--port", "0"]
    command += ["--lake", str(folder / "lake"), "--state", str(folder / "state.db"), "--flush-s", "2"]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, "UNDERSTUDY_COLLECT_TOKEN": TOKEN},
        stderr=subprocess.PIPE,
        text=True,
    )
    os.sched_setaffinity(process.pid, {_CORE})  # its threads, begun later, inherit it
    assert process.stderr is not None
    return int(process.stderr.readline().rsplit(":", 1)[1]), process


def _cpu_s(process: int) -> float:
    """Seconds of a core that a process has used."""
    fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _lake_rows(folder: Path) -> int:
    lake = Lake.open(str(folder / "lake"))
    found = Snapshot.current(lake)
    return found.rows("impressions") + found.rows("actions")


def storage(folder: Path, config: Config, bodies: list[bytes], name: str) -> tuple[int, int]:
    """Rows and bytes of the segments that the bodies become."""
    assert config.logging is not None
    journal = Journal(folder / f"{name}.db", config.logging, keep_s=86_400)
    lake = Lake.open_or_create(str(folder / name))
    now_us = time.time_ns() // 1_000
    for body in bodies:
        journal.take([(decode(body), now_us)])
    rows = sum(flush(journal, lake, config))
    journal.close()
    return rows, sum(path.stat().st_size for path in (folder / name / "tables").rglob("*.parquet"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--requests", type=int, default=30, help="requests of a batch; each has 12 events")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="understudy-bench-") as name:
        found = throughput(Path(name), seconds=given.seconds, connections=given.connections, requests=given.requests)
    row = [f"{found[key]:,.0f}" for key in ("events", "batches", "events_per_s")]
    row += [f"{found[key]:.1f}" for key in ("p50_ms", "p99_ms", "cpu_us")] + [
        f"{found['in_lake']:.0%}, then {found['rest_s']:.1f} s"
    ]
    columns = [
        "events",
        "batches",
        "durable events/s",
        "p50 ms",
        "p99 ms",
        "µs of the core an event",
        "rows in the lake",
    ]
    print_table(f"one core, {given.connections} connections, {given.requests * EVENTS} events a batch", columns, [row])
    config = load(CONFIG)
    assert config.logging is not None
    made = batches("s", given.requests, time.time_ns() // 1_000)
    bodies = [next(made) for _ in range(100)]
    rules = {
        "keep rule": config.logging,
        "every seen item": replace(config.logging, negative_keep_rate=1.0),
        "every candidate": replace(config.logging, negative_keep_rate=1.0, random_share=1.0),
    }
    with tempfile.TemporaryDirectory(prefix="understudy-bench-") as name:
        sizes = {
            rule: storage(Path(name), replace(config, logging=logging), bodies, rule) for rule, logging in rules.items()
        }
    full = sizes["every candidate"][1]
    rows = [(rule, f"{count:,}", f"{size:,}", f"{1 - size / full:.0%}") for rule, (count, size) in sizes.items()]
    print_table("the same events, by what is logged of them", ["rule", "rows", "bytes", "saved"], rows)


if __name__ == "__main__":
    main()
