"""What the container images promise, read off the files that build them."""

import itertools
import re
import runpy
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from understudy.jobs import spark_jobs
from understudy.jobs.train_job import train_job
from understudy.kubeflow.config import Pipeline
from understudy.training.config import Training

ROOT = Path(__file__).resolve().parent.parent.parent
IMAGES = ROOT / "images"
ROLES = ("serve", "tools", "spark", "train")
CONTAINERFILE = (IMAGES / "Containerfile").read_text()
INSTALL = (IMAGES / "install.sh").read_text()


def instructions(text: str) -> list[list[str]]:
    """Each instruction's words, continued lines joined."""
    joined = re.sub(r"\\\n\s*", "", text)
    return [line.split() for line in joined.splitlines() if line and not line.startswith("#")]


def final_stage() -> list[list[str]]:
    found = instructions(CONTAINERFILE)
    return found[max(n for n, words in enumerate(found) if words[0] == "FROM") :]


def test_every_stage_begins_with_the_base_that_an_argument_names() -> None:
    bases = {words[1] for words in instructions(CONTAINERFILE) if words[0] == "FROM"}
    assert bases == {"${BASE}", "builder"}
    defaults = re.findall(r"^ARG BASE=(.+)$", CONTAINERFILE, re.MULTILINE)
    assert len(defaults) == 1
    assert re.fullmatch(r"docker\.io/library/python:3\.11-slim-\w+", defaults[0])
    assert defaults[0] in (IMAGES / "build.sh").read_text()


def test_an_image_runs_as_a_number_that_is_not_root() -> None:
    (user,) = [words[1] for words in final_stage() if words[0] == "USER"]
    uid, gid = map(int, user.split(":"))
    assert uid >= 10000
    assert gid >= 10000
    pods = (ROOT / "manifests" / "base" / "serve" / "deployment.yaml").read_text()
    assert f"runAsUser: {uid}" in pods


def test_an_image_keeps_only_what_runs() -> None:
    kept = [words for words in final_stage() if words[0] in ("COPY", "ADD")]
    assert kept == [
        ["COPY", "--from=packages", "/opt/venv", "/opt/venv"],
        ["COPY", "--from=code", "/app", "/app"],
    ]


def test_secrets_stay_mounts_of_the_build() -> None:
    assert not re.search(r"(?i)^(ARG|ENV)\b.*(token|password|secret|index_url|pip_)", CONTAINERFILE, re.MULTILINE)
    secrets = re.findall(r"--mount=type=secret,id=(\w+)", CONTAINERFILE)
    assert set(secrets) == {"pip", "ca"}


def test_an_image_says_what_it_is() -> None:
    labels = set(re.findall(r"org\.opencontainers\.image\.([\w.]+)=", CONTAINERFILE))
    assert labels >= {"title", "version", "revision", "source", "licenses", "base.name"}


def test_nothing_is_installed_that_no_lock_names() -> None:
    loose = [line.strip() for line in INSTALL.splitlines() if re.search(r"\bpip.* install ", line)]
    assert [line for line in loose if not re.search(r"--no-deps|--constraint|[\w-]+==[\d.]+", line)] == []


@pytest.mark.parametrize("role", ROLES)
def test_a_role_has_a_lock_and_an_extra(role: str) -> None:
    assert re.search(rf"^    {role}\)", INSTALL, re.MULTILINE)
    assert (ROOT / "requirements" / f"{role}.txt").exists()
    assert role in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


# Whether it can import what it needs


def test_at_its_end_a_build_imports_what_will_run() -> None:
    stage = final_stage()
    (check,) = [n for n, words in enumerate(stage) if words[0] == "RUN" and words[-1] == "imports"]
    assert check > max(n for n, words in enumerate(stage) if words[0] in ("COPY", "ENV", "USER"))
    (variant,) = {words[1] for words in instructions(CONTAINERFILE) if words[1].startswith("VARIANT=")}
    assert ["ARG", variant] in stage[:check]


def test_what_an_image_runs_is_what_it_imports() -> None:
    found: dict[str, set[str]] = {role: set() for role in ROLES}
    for path in (ROOT / "manifests").rglob("*.yaml"):
        for image, command in commands(yaml.safe_load(path.read_text())):
            found[image.removeprefix("understudy-")].add(command)
    found["spark"] |= {spark_jobs.ENTRY[-1], spark_jobs.MAIN.removeprefix("local:///app/")[:-3].replace("/", ".")}
    found["train"].add(
        train_job(Training(runtime="r"), Pipeline(), "train_ranker", "i")["spec"]["trainer"]["command"][-1]
    )
    programs = runpy.run_path(str(IMAGES / "imports.py"))["PROGRAMS"]
    assert {role: set(its) for role, its in programs.items()} == found


def commands(value: Any) -> Iterator[tuple[str, str]]:
    """Image and command of each container that runs `understudy`."""
    if isinstance(value, dict) and value.get("command") == ["understudy"] and "image" in value:
        words = list(itertools.takewhile(lambda word: word.isalpha(), value["args"]))
        yield value["image"], " ".join(words)
    for one in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from commands(one)


def test_what_an_image_is_built_from_is_the_package_and_no_more() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().split() if line.startswith("!")}
    copied = [words[1:-1] for words in instructions(CONTAINERFILE) if words[0] == "COPY" and "=" not in words[1]]
    assert {source.split("/")[0] for sources in copied for source in sources} == allowed
    assert not allowed & {".git", "tests", "lake", "shared", ".venv"}
    assert (ROOT / ".dockerignore").read_text().startswith("*\n")


def engine(folder: Path, answers: bool) -> dict[str, str]:
    """An environment with a docker that notes what it is asked, and no other engine."""
    folder.mkdir()
    fake = folder / "docker"
    fake.write_text(
        "#!/bin/sh\n"
        f'echo "$@" >> {folder}/asked\n'
        f'case "$1" in info) exit {0 if answers else 1} ;; image) echo 352000000 ;; run) echo "{{}}" ;; esac\n'
        'while [ $# -gt 1 ]; do [ "$1" = --iidfile ] && echo sha256:1 > "$2"; shift; done; exit 0\n'
    )
    fake.chmod(0o755)
    for one in ("podman", "buildah"):
        (folder / one).write_text("#!/bin/sh\nexit 1\n")
        (folder / one).chmod(0o755)
    return {"PATH": f"{folder}:/usr/bin:/bin", "SBOM": str(folder / "sbom")}


def build(environment: dict[str, str], *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [str(IMAGES / "build.sh"), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_the_script_builds_what_was_asked_and_prints_what_it_weighs(tmp_path: Path) -> None:
    environment = engine(tmp_path / "bin", answers=True)
    asked = {"ROLE": "train serve", "TAG": "7", "BASE": "mine:1", "VARIANT": "cuda", "BUILD_ARGS": "--network host"}
    done = build({**environment, **asked})
    assert done.returncode == 0, done.stderr
    assert re.search(r"^understudy/train-python:7-cuda\s+352 MB", done.stdout, re.MULTILINE)
    assert re.search(r"^understudy/serve-python:7\s+352 MB", done.stdout, re.MULTILINE)
    train, serve = [line for line in (tmp_path / "bin" / "asked").read_text().splitlines() if line.startswith("build")]
    assert "--network host" in train
    assert "--build-arg BASE=mine:1 --build-arg ROLE=train --build-arg VARIANT=cuda" in train
    assert "--build-arg ROLE=serve" in serve


@pytest.mark.parametrize(
    ("answers", "settings", "said"),
    [
        (False, {}, "expected docker, podman or buildah to answer, found none"),
        (False, {"ENGINE": "docker"}, "ENGINE=docker: expected it to answer"),
        (True, {"ROLE": "cook"}, "ROLE=cook: expected spark, tools, train or serve"),
    ],
)
def test_what_cannot_be_built_is_said_in_one_line(
    tmp_path: Path, answers: bool, settings: dict[str, str], said: str
) -> None:
    done = build({**engine(tmp_path / "bin", answers), **settings})
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_script_tells_its_settings() -> None:
    done = build({"PATH": "/usr/bin:/bin"}, "--help")
    assert done.returncode == 0
    for setting in ("ROLE", "ENGINE", "BASE", "NAME", "TAG", "VARIANT", "SBOM", "BUILD_ARGS"):
        assert re.search(rf"^  {setting}\b", done.stdout, re.MULTILINE)
