"""When a pipeline and the images of its steps differ, the plan of `schedule apply` says so."""

import pytest

from understudy.kubeflow.versions import compiled_by, difference, image_version, made_by

DIGEST = "@sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("image", "version"),
    [
        ("understudy/tools-python:0.1.0", "0.1.0"),
        ("ghcr.io:5000/me/tools:v0.2.1", "0.2.1"),
        (f"ghcr.io/me/tools:0.2.1{DIGEST}", "0.2.1"),
        ("me/tools:0.2.0-cuda", "0.2.0"),
        (f"ghcr.io/me/tools{DIGEST}", ""),
        ("me/tools:latest", ""),
        ("registry:5000/tools", ""),
        ("me/tools:20260105.1.2.3x", ""),
    ],
)
def test_an_image_s_tag_may_name_its_version(image: str, version: str) -> None:
    assert image_version(image) == version


def test_the_server_keeps_who_compiled_a_pipeline() -> None:
    assert compiled_by(made_by("0.2.0")) == "0.2.0"
    assert [compiled_by(one) for one in (None, "", "my pipeline", "made by understudy dev")] == ["", "", "", ""]


ONE = {"tools": "a/tools:0.1.0", "train": "a/train:0.1.4", "spark": f"a/spark{DIGEST}"}
NEXT = {"tools": "a/tools:0.2.0", "train": "a/train:0.2.0", "spark": "a/spark:0.1.0"}


@pytest.mark.parametrize(
    ("by", "images", "this", "expected"),
    [
        ("0.1.0", ONE, "0.1.3", None),
        ("", NEXT, "0.1.0", None),
        (
            "0.1.0", NEXT, "0.2.0",
            "pipeline p: compiled by understudy 0.1.0, its images are of 0.2.0 (tools, train); it runs in images of "
            "0.1 and 0.2: apply again with that version soon",
        ),
        (
            "0.2.0", ONE, "0.2.0",
            "pipeline p: compiled by understudy 0.2.0, its images are of 0.1.0 (tools), 0.1.4 (train); it runs in "
            "images of 0.2 and 0.3: set pipeline.images, or apply with the images' version",
        ),
        (
            "0.1.0", {"tools": f"a/tools{DIGEST}"}, "0.2.0",
            "pipeline p: compiled by understudy 0.1.0, this command is 0.2.0; it runs in images of 0.1 and 0.2",
        ),
    ],
    ids=["alike", "nobody knows", "of the next minor", "of an older one", "named by a digest"],
)  # fmt: skip
def test_a_difference_is_one_line_that_says_what_to_do(
    by: str, images: dict[str, str], this: str, expected: str | None
) -> None:
    assert difference("p", by, images, this) == expected
