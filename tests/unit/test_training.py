"""Training: resumable to the same bytes, taught where a teacher knows more."""

import numpy as np
import pytest
import torch
from small_training import CONFIG, INPUTS, RANKER, feeds_of, labelled, trained
from torch import Tensor

from understudy.lake import Lake
from understudy.ranker.files import to_files
from understudy.ranker.fitting import new_model
from understudy.training.batches import Rows
from understudy.training.checkpoint import Checkpoints
from understudy.training.config import Distillation, HeadDistillation
from understudy.training.loop import fit
from understudy.training.loss import distillation_loss, label_loss
from understudy.training.teacher import teacher_targets


def test_a_position_effect_is_found_in_a_few_hundred_steps() -> None:
    torch.set_num_threads(1)
    random = np.random.default_rng(0)
    feeds = feeds_of(12_000, 0)
    feeds["position"] = random.integers(0, 12, 12_000).astype(np.float32)
    effect = -0.4 * np.log1p(np.arange(12))
    chance = 1 / (1 + np.exp(-(-1.0 + effect[feeds["position"].astype(int)])))
    labels = (random.random((12_000, 2)) < np.stack([chance, np.full(12_000, 0.2)], axis=1)).astype(np.float32)
    model = new_model(RANKER, INPUTS, feeds, labels, np.ones(12_000, np.float32), seed=0)
    rows = Rows.prepare(model, feeds, torch.from_numpy(labels), torch.ones(12_000))
    none = (lambda *_: None, lambda *_: None, lambda *_: None)
    fit(model, rows, rows, CONFIG, resume=none[0], save=none[1], progress=none[2])
    learned = model.network.position.weight.detach().numpy()[:12]
    assert np.abs(learned[6:, 0] - learned[0, 0] - effect[6:]).mean() < 0.2
    assert np.abs(learned[6:, 1] - learned[0, 1]).mean() < 0.2


@pytest.mark.parametrize("stop_after", [1, 2, 3, 5])
def test_training_that_was_killed_ends_with_the_same_bytes(tmp_path: object, stop_after: int) -> None:
    whole = trained(Lake.open_or_create(f"{tmp_path}/a"))
    with pytest.raises(KeyboardInterrupt):
        trained(Lake.open_or_create(f"{tmp_path}/b"), stop_after=stop_after)
    resumed = trained(Lake.open_or_create(f"{tmp_path}/b"))
    assert to_files(resumed) == to_files(whole)


def test_of_two_checkpoints_the_newer_counts(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is killed between the two steps of ``save`` leaves both."""
    lake = Lake.open_or_create(str(tmp_path))
    monkeypatch.setattr(Lake, "remove", lambda *_: None)
    trained(lake)
    assert len(lake.names("checkpoints")) > 1
    model = new_model(RANKER, INPUTS, *labelled(640, 0), np.ones(640, np.float32), seed=0)
    state = Checkpoints(lake, "checkpoints", "k" * 64).resume(model, torch.optim.AdamW(model.network.parameters()))
    assert state is not None
    assert state.evaluation == len(lake.names("checkpoints"))


def test_another_trainings_checkpoint_is_ignored(tmp_path: object) -> None:
    lake = Lake.open_or_create(str(tmp_path))
    trained(lake)
    other = Checkpoints(lake, "checkpoints", "x" * 64)
    model = new_model(RANKER, INPUTS, *labelled(640, 0), np.ones(640, np.float32), seed=0)
    assert other.resume(model, torch.optim.AdamW(model.network.parameters())) is None


ONE = torch.ones(1)
UNKNOWN = torch.tensor([[float("nan")]])


def taught(logits: float, label: Tensor, teacher: Tensor, alpha: float, traffic: Tensor = ONE) -> float:
    shares = {"alpha_H": torch.tensor([alpha]), "temperature_H": torch.tensor([2.0])}
    return distillation_loss(torch.tensor([[logits]]), label, teacher, ONE, traffic, **shares).item()


def test_alpha_one_learns_from_the_teacher_alone() -> None:
    assert taught(0.3, torch.tensor([[1.0]]), torch.tensor([[0.3]]), 1.0) == pytest.approx(0.0, abs=1e-6)


def test_a_head_without_a_teacher_learns_from_its_labels() -> None:
    label = torch.tensor([[1.0]])
    assert taught(0.3, label, UNKNOWN, 0.7) == label_loss(torch.tensor([[0.3]]), label, ONE).item()


def test_an_unknown_label_teaches_nothing() -> None:
    assert taught(9.0, UNKNOWN, UNKNOWN, 0.5) == 0


def test_the_teacher_weighs_by_traffic_and_never_by_importance() -> None:
    teacher = torch.tensor([[1.0]])
    assert taught(0.3, UNKNOWN, teacher, 1.0, traffic=3 * ONE) == pytest.approx(3 * taught(0.3, UNKNOWN, teacher, 1.0))


def test_a_head_has_its_own_alpha_and_temperature() -> None:
    config = Distillation(alpha=0.5, temperature=2.0, heads={"like": HeadDistillation(alpha=0.1)})
    assert config.of(("click", "like")) == ((0.5, 0.1), (2.0, 2.0))


def test_the_teacher_acts_only_on_rows_newer_than_its_window() -> None:
    random = np.random.default_rng(0)
    logits = random.normal(size=(2000, 1)).astype(np.float32)
    labels = (random.random((2000, 1)) < 1 / (1 + np.exp(-(0.5 * logits - 1)))).astype(np.float32)
    new = np.arange(2000) >= 500
    targets, fits = teacher_targets(logits, labels, np.ones(2000), new, Distillation(), ("click",))
    assert np.isnan(targets[:500]).all()
    assert not np.isnan(targets[500:]).any()
    assert fits["click"]["scale"] == pytest.approx(0.5, abs=0.15)
    assert fits["click"]["shift"] == pytest.approx(-1.0, abs=0.15)
