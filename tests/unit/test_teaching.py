"""Who teaches the next student, and when a control or the end of distillation is due."""

import dataclasses
import json
from typing import Any

import pytest

from understudy.runs.teaching import Teaching, decide_teaching, gained
from understudy.section import canonical_json
from understudy.training.config import Distillation, Training

TRAINING = Training(control_every=3, distillation=Distillation(give_up_after=2))


def release(control: dict[str, float] | None, training: Training = TRAINING) -> dict[str, Any]:
    return {"control": control, "config": {"training": json.loads(canonical_json(training))}}


PAID, LOST = {"click": 0.002}, {"click": -0.001}


@pytest.mark.parametrize(
    ("ancestors", "control"),
    [
        ([release(None)], True),
        ([release(PAID), release(None)], False),
        ([release(None), release(PAID)], False),
        ([release(None), release(None), release(PAID)], True),
    ],
)
def test_a_control_comes_with_the_first_student_and_then_in_its_turn(ancestors: list[Any], control: bool) -> None:
    assert decide_teaching(TRAINING, "p", "p", ancestors) == Teaching("p", "production", control=control)


def test_no_control_where_none_is_wanted() -> None:
    assert not decide_teaching(dataclasses.replace(TRAINING, control_every=0), "p", "p", [release(None)]).control


def test_distillation_stays_off_once_it_has_not_paid_often_enough() -> None:
    found = decide_teaching(TRAINING, "p", "p", [release(LOST), release(None), release(LOST), release(PAID)])
    assert found.given_up
    assert found.teacher is None
    assert found.note == "distillation is off: it gained nothing in the last 2 controls"
    still = decide_teaching(TRAINING, "p", "p", [release(None), release(LOST), release(LOST)])
    assert still.given_up


@pytest.mark.parametrize(
    "ancestors",
    [
        [release(LOST)],
        [release(LOST), release(PAID), release(LOST)],
        [release(LOST), release(LOST, dataclasses.replace(TRAINING, distillation=Distillation(alpha=0.9)))],
    ],
)
def test_one_gain_too_few_controls_or_another_setting_keeps_it_on(ancestors: list[Any]) -> None:
    assert decide_teaching(TRAINING, "p", "p", ancestors).teacher == "p"


def test_a_control_is_judged_by_the_mean_over_primary_heads() -> None:
    assert gained({"click": 0.003, "like": -0.001})
    assert not gained({"click": 0.0})


@pytest.mark.parametrize(
    ("production", "healthy", "note"),
    [
        (None, None, "first release: nothing in production"),
        ("p", None, "production is quarantined: no healthy ancestor"),
        ("p", "q", "production is quarantined: its nearest healthy ancestor"),
    ],
)
def test_a_teacher_is_in_good_health_or_there_is_none(production: Any, healthy: Any, note: str) -> None:
    found = decide_teaching(TRAINING, production, healthy, [])
    assert (found.teacher, found.note) == (healthy, note)


def test_an_ensemble_needs_no_release() -> None:
    training = dataclasses.replace(TRAINING, distillation=Distillation(teacher="ensemble"))
    found = decide_teaching(training, None, None, [])
    assert (found.teacher, found.control) == (None, True)
    assert "ensemble" in found.note
