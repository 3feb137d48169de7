"""Make a job, follow it to its end, say what its pods say, and tidy up.

A job's name follows from the run, the step and the job: a launcher that was killed and started again finds the job that
it has made and goes on following it. What decides is the lake: the step has committed, or it has not.
"""

import contextlib
import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import FrameType
from typing import NamedTuple

from understudy.errors import GateFailed, UnderstudyError
from understudy.jobs.pods import Json
from understudy.kubernetes_api import Api, Conflict, Unreachable, connect
from understudy.lake import Lake
from understudy.processes import how_it_ended
from understudy.redaction import last_lines
from understudy.runs import Run, say_error, stop_at_failed
from understudy.section import canonical_json

__all__ = ["Watched", "launch", "seen"]

_PATIENCE_S = 600.0  # without an answer of the cluster, before following is given up
_TOLD = 25  # last lines of a job that has failed


class Watched(NamedTuple):
    """How far a job is.

    Args:
        state: ``waiting``, ``running``, ``done`` or ``failed``.
        said: for people: the state as its controller names it, and of what.
        pods: selector of labels of the pods whose words are ours.
    """

    state: str
    said: str
    pods: str


def launch(step: str, lake_uri: str, run_id: str, section: str, job: str, *, every_s: float = 5.0) -> None:
    """Have a step done by a job, unless it is committed already.

    Args:
        job: canonical JSON of its object, but for name and arguments.
        every_s: between two looks at it.

    Raises:
        GateFailed: a gate of the step said no. UnderstudyError: the job failed, or ended without a commit.
    """
    lake = Lake.open(lake_uri)
    run = Run(lake, run_id)
    manifest = run.manifest(step)
    if manifest is None:
        known = lake.names(run.folder, "steps", step, "errors")
        try:
            _have_done(_named(json.loads(job), step, lake_uri, run_id, section), every_s)
        except Exception as error:
            if run.manifest(step) is None and not isinstance(error, GateFailed):
                say_error(step, error)
                if lake.names(run.folder, "steps", step, "errors") == known:  # else the job itself has said why
                    run.record_error(step, error)
                raise
        manifest = run.manifest(step)
    if manifest is None:
        lost = UnderstudyError(
            f"{step}: expected its job to commit it to lake {lake_uri}, found no commit; see its log"
        )
        run.record_error(step, lost)
        raise lost
    stop_at_failed(step, manifest)


def _named(job: Json, step: str, lake_uri: str, run_id: str, section: str) -> Json:
    """The object of one run."""
    words = [lake_uri, run_id, section]
    digest = hashlib.sha256(canonical_json([job, step, *words]).encode()).hexdigest()[:10]
    metadata = {**job["metadata"], "name": f"{step.replace('_', '-')}-{digest}"}
    if os.environ.get("POD_NAME") and os.environ.get("POD_UID"):  # the job ends with the run's own objects
        owner = {"apiVersion": "v1", "kind": "Pod", "name": os.environ["POD_NAME"], "uid": os.environ["POD_UID"]}
        metadata["ownerReferences"] = [owner]
    spec = dict(job["spec"])
    if job["kind"] == "SparkApplication":
        spec["arguments"] = [step, *words]
    else:
        spec["trainer"] = {**spec["trainer"], "args": words}
    return {**job, "metadata": metadata, "spec": spec}


def _have_done(job: Json, every_s: float) -> None:
    api = connect(None)
    api = Api(api.client, api.namespace, "understudy-jobs", "manifests/overlays/kubeflow")
    following = _Following(api, job["kind"], job["metadata"]["name"])
    following.make(job)
    with _stopped_by(following.remove):
        state, said = following.to_its_end(every_s)
    if state == "failed":
        last = "\n".join(last_lines("\n".join(following.words), lines=_TOLD))
        print(f"{job['metadata']['name']}: last words of its pods:\n{last}", file=sys.stderr, flush=True)
        ends = "".join(f", {pod} {how}" for pod, how in sorted(following.ends.items()))
        raise UnderstudyError(
            f"{job['kind']} {job['metadata']['name']}: expected it to end well, found {said}{ends}; its pods' last "
            f"words stand above, and `kubectl describe {job['kind'].lower()} {job['metadata']['name']}` says more"
        )
    following.remove()


@dataclass
class _Following:
    """One job of a cluster, and what its pods have said so far."""

    api: Api
    kind: str
    name: str
    words: list[str] = field(default_factory=list)
    ends: dict[str, str] = field(default_factory=dict)  # pod → how it has ended, where not well
    _heard: dict[str, str] = field(default_factory=dict)  # pod → time of its last line

    def make(self, job: Json) -> None:
        """Make the job, or find it; one that has failed is made anew."""
        found = self.api.get(self.kind, self.name)
        if found is not None and seen(found).state == "failed":
            _say(f"{self.kind} {self.name} of an earlier attempt has failed: it is made anew")
            self.remove()
            self._wait_until_gone()
            found = None
        if found is not None:
            _say(f"goes on following {self.kind} {self.name}")
            return
        with contextlib.suppress(Conflict):  # made already, by a call whose answer was lost
            self.api.create(self.kind, job)
        _say(f"made {self.kind} {self.name}")

    def to_its_end(self, every_s: float) -> tuple[str, str]:
        """State and words of the job's end."""
        told, answered = "", time.monotonic()
        while True:
            try:
                job = self.api.get(self.kind, self.name)
                if job is None:
                    raise UnderstudyError(
                        f"{self.kind} {self.name}: expected it until its end, found it removed; the run can be retried"
                    )
                state, said, pods = seen(job)
                answered = time.monotonic()
                if said != told:
                    _say(f"{self.name}: {said}")
                    told = said
                self._listen(pods)
                if state in ("done", "failed"):
                    return state, said
            except Unreachable:
                if time.monotonic() - answered > _PATIENCE_S:
                    raise
            time.sleep(every_s)

    def _listen(self, selector: str) -> None:
        """Say what the pods have said since the last look."""
        found = {one["metadata"]["name"]: one for one in self.api.list("Pod", selector)}
        self.ends |= {name: how for name, pod in found.items() if (how := _end_of(pod))}
        for pod in sorted(found):
            before = self._heard.get(pod, "")
            for line in self.api.log(pod, before).splitlines():
                at, _, text = line.partition(" ")
                if at > before:
                    self.words.append(text)
                    print(text, file=sys.stderr, flush=True)
                    self._heard[pod] = at

    def remove(self) -> None:
        self.api.delete(self.kind, self.name)

    def _wait_until_gone(self) -> None:
        end = time.monotonic() + _PATIENCE_S
        while self.api.get(self.kind, self.name) is not None:
            if time.monotonic() > end:
                raise UnderstudyError(
                    f"{self.kind} {self.name}: expected it to go after its deletion, found it; see its finalizers"
                )
            time.sleep(1)


def seen(job: Json) -> Watched:
    """What a job's status says; a job without one waits."""
    status = job.get("status") or {}
    if job["kind"] == "SparkApplication":
        return _spark(job, status)
    return _training(job, status)


def _spark(job: Json, status: Json) -> Watched:
    found = status.get("applicationState") or {}
    name = str(found.get("state") or "NEW").upper()
    state = {"COMPLETED": "done", "FAILED": "failed", "SUBMISSION_FAILED": "failed", "RUNNING": "running"}.get(name)
    executors = list((status.get("executorState") or {}).values())
    up = sum(one == "RUNNING" for one in executors)
    said = f"{name.lower().replace('_', ' ')}" + (f", {up} of {len(executors)} executors run" if executors else "")
    if found.get("errorMessage"):
        said += f": {' '.join(str(found['errorMessage']).split())[:500]}"
    labels = f"sparkoperator.k8s.io/app-name={job['metadata']['name']},spark-role=driver"
    return Watched(state or "waiting", said, labels)


def _training(job: Json, status: Json) -> Watched:
    """Complete and Failed are waited for together: under a queue, a job may never be seen to run."""
    labels = f"jobset.sigs.k8s.io/jobset-name={job['metadata']['name']},batch.kubernetes.io/job-completion-index=0"
    true = {one["type"]: one for one in status.get("conditions") or [] if one.get("status") == "True"}
    for kind, state in (("Complete", "done"), ("Failed", "failed")):
        if kind in true:
            why = true[kind].get("message") or true[kind].get("reason") or ""
            return Watched(state, f"{kind.lower()}{f': {why}' if why else ''}"[:500], labels)
    active = sum(int(one.get("active") or 0) for one in status.get("jobsStatus") or [])
    if active:
        return Watched("running", "running", labels)
    suspended = "Suspended" in true or (job.get("spec") or {}).get("suspend")
    return Watched("waiting", "suspended, a queue may hold it" if suspended else "waiting for its pods", labels)


def _end_of(pod: Json) -> str:
    """How a pod's containers have ended; empty where they run, or have ended well."""
    for one in (pod.get("status") or {}).get("containerStatuses") or []:
        end = (one.get("state") or {}).get("terminated") or {}
        if end.get("exitCode"):
            reason = f" ({end['reason']})" if end.get("reason") not in (None, "", "Error") else ""
            return how_it_ended(int(end["exitCode"])) + reason
    return ""


@contextlib.contextmanager
def _stopped_by(remove: Callable[[], None]) -> Iterator[None]:
    """While following, a polite request to stop removes the job first: nobody asks any more for what it makes."""

    def stop(number: int, _: FrameType | None) -> None:
        _say("asked to stop: the job is removed")
        remove()
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
