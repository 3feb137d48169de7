"""Training: resumable to the same bytes, taught where a teacher knows more, exported alike."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from understudy.calibration.fit import Calibrator
from understudy.calibration.module import Calibration
from understudy.inputs import PER_REQUEST, Feeds, Inputs, per_row
from understudy.lake import Lake
from understudy.ranker.config import Ranker
from understudy.ranker.export import export
from understudy.ranker.files import from_files, to_files
from understudy.ranker.fitting import as_tensors, new_model
from understudy.ranker.network import RankerModel
from understudy.ranker.preprocess import split
from understudy.ranker.served import Served
from understudy.training.batches import Rows
from understudy.training.checkpoint import Checkpoints
from understudy.training.config import Distillation, HeadDistillation, Training
from understudy.training.loop import State, fit
from understudy.training.loss import distillation_loss, label_loss
from understudy.training.teacher import teacher_targets

INPUTS = Inputs(
    heads=("click", "like"),
    time_zone="UTC",
    categorical=("user_id", "item_id", "creator_id", "topic_id", "surface", "hour", "user_profile__level"),
    numeric=("item_profile__length",),
    half_lives=("1d",),
    recent_events=4,
    surfaces=2,
)
RANKER = Ranker(hidden=(16,), cross_layers=1, cross_rank=4, min_id_count=1)
CONFIG = Training(epochs=3, batch_size=64, patience=5, ranker=RANKER, threads=1)


def feeds_of(rows: int, seed: int, inputs: Inputs = INPUTS) -> Feeds:
    random = np.random.default_rng(seed)
    feeds: Feeds = {}
    for name, (kind, shape) in inputs.shapes().items():
        if kind is np.int64:
            feeds[name] = random.integers(1, 20, (rows, *shape))
        else:
            feeds[name] = random.uniform(0, 5, (rows, *shape)).astype(np.float32)
    return feeds


def labelled(rows: int, seed: int) -> tuple[Feeds, np.ndarray]:
    feeds = feeds_of(rows, seed)
    likes = (feeds["categorical"][:, 1] % 3 == 0).astype(np.float32)
    return feeds, np.stack([1 - likes, likes], axis=1)


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


def trained(lake: Lake, *, stop_after: int | None = None) -> RankerModel:
    """Train on planted data; ``stop_after`` evaluations the process "dies"."""
    torch.set_num_threads(1)
    feeds, labels = labelled(640, 0)
    stop_feeds, stop_labels = labelled(200, 1)
    model = new_model(RANKER, INPUTS, feeds, labels, np.ones(640, np.float32), seed=0)
    train = Rows.prepare(model, feeds, torch.from_numpy(labels), torch.ones(640))
    stop = Rows.prepare(model, stop_feeds, torch.from_numpy(stop_labels), torch.ones(200))

    def die(state: State) -> None:
        if state.evaluation == stop_after:
            raise KeyboardInterrupt

    checkpoints = Checkpoints(lake, "checkpoints", "k" * 64)
    fit(model, train, stop, CONFIG, resume=checkpoints.resume, save=checkpoints.save, progress=die)
    return model


@pytest.mark.parametrize("stop_after", [1, 2, 3, 5])
def test_training_that_was_killed_ends_with_the_same_bytes(tmp_path: object, stop_after: int) -> None:
    whole = trained(Lake.open_or_create(f"{tmp_path}/a"))
    with pytest.raises(KeyboardInterrupt):
        trained(Lake.open_or_create(f"{tmp_path}/b"), stop_after=stop_after)
    resumed = trained(Lake.open_or_create(f"{tmp_path}/b"))
    assert to_files(resumed) == to_files(whole)


def test_another_trainings_checkpoint_is_ignored(tmp_path: object) -> None:
    lake = Lake.open_or_create(str(tmp_path))
    trained(lake)
    other = Checkpoints(lake, "checkpoints", "x" * 64)
    model = new_model(RANKER, INPUTS, *labelled(640, 0), np.ones(640, np.float32), seed=0)
    assert other.resume(model, torch.optim.AdamW(model.network.parameters())) is None


CALIBRATORS = [Calibrator("affine", 0.9, -0.2), Calibrator("isotonic", x=(-1.0, 0.0, 2.0), y=(-2.0, 0.5, 1.0))]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[RankerModel, bytes]:
    """A trained network and its served file; an export takes seconds."""
    model = trained(Lake.open_or_create(str(tmp_path_factory.mktemp("exported"))))
    return model, export(model, Calibration(CALIBRATORS))


def test_the_exported_file_scores_as_the_network_does(exported: tuple[RankerModel, bytes]) -> None:
    model, data = exported
    feeds = feeds_of(50, 2)
    feeds["categorical"][:5] = 0
    feeds["event_age_s"][:5] = -1
    with torch.no_grad():
        logits = model(as_tensors(feeds)).numpy()
    probabilities, served = Served(data, INPUTS, threads=1).score_feeds(feeds)
    np.testing.assert_allclose(served, logits, atol=1e-5)
    expected = np.stack([c.probabilities(logits[:, h]) for h, c in enumerate(CALIBRATORS)], axis=1)
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("fewer", "exported"),
    [
        ({"numeric": (), "categorical": INPUTS.categorical[:6], "crosses": ("creator", "topic")}, True),
        ({"numeric": ()}, False),
        ({"numeric": ("user_profile__age",), "heads": ("click",), "recent_events": 1, "surfaces": 1}, False),
    ],
    ids=["no attributes", "no numbers", "one of each"],
)
def test_a_log_that_says_little_is_trained_and_served(fewer: dict[str, Any], exported: bool) -> None:
    inputs = dataclasses.replace(INPUTS, **fewer)
    feeds, heads = feeds_of(60, 0, inputs), len(inputs.heads)
    labels = (np.random.default_rng(1).random((60, heads)) < 0.5).astype(np.float32)
    model = new_model(RANKER, inputs, feeds, labels, np.ones(60), seed=0)
    rows = Rows.prepare(model, feeds, torch.from_numpy(labels), torch.ones(60))
    config = dataclasses.replace(CONFIG, epochs=1)
    fit(model, rows, rows, config, resume=lambda *_: None, save=lambda *_: None, progress=lambda *_: None)
    served = Served(export(model, Calibration([Calibrator("affine")] * heads)), inputs, threads=1) if exported else None
    for requests, candidates in ((1, 1), (1, 60), (20, 3)):
        some = {n: a[:requests] if n in PER_REQUEST else a[: requests * candidates] for n, a in feeds.items()}
        with torch.no_grad():
            logits = model.eval()(as_tensors(some)).numpy()
        assert logits.shape == (requests * candidates, heads)
        if served is not None:
            np.testing.assert_allclose(served.score_feeds(some)[1], logits, atol=1e-5)


def test_a_slate_scores_as_its_rows_do(exported: tuple[RankerModel, bytes]) -> None:
    model, data = exported
    served = Served(data, INPUTS, threads=1)
    slates = {name: array[::12] if name in PER_REQUEST else array for name, array in feeds_of(60, 3).items()}
    for name, shared in (("categorical", split(INPUTS.categorical)[0]), ("numeric", split(INPUTS.numeric)[0])):
        slates[name][:, shared] = slates[name][::12, shared].repeat(12, axis=0)
    for array in (slates["counters"][:, 0], slates["counter_age_s"][:, 0], slates["hour"]):
        array[:] = array[::12].repeat(12, axis=0)
    by_slate, by_row = served.score_feeds(slates)[0], served.score_feeds(per_row(slates))[0]
    assert by_slate.shape == (60, 2)
    np.testing.assert_allclose(by_slate, by_row, atol=1e-6)
    with torch.no_grad():
        np.testing.assert_allclose(served.score_feeds(slates)[1], model(as_tensors(slates)).numpy(), atol=1e-5)


def test_equal_models_export_to_equal_bytes_without_paths(exported: tuple[RankerModel, bytes]) -> None:
    model, data = exported
    assert data == export(from_files(to_files(model)), Calibration(CALIBRATORS))
    assert b"/understudy/" not in data


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


PLAIN = dataclasses.replace(CONFIG, ranker=dataclasses.replace(RANKER, dropout=0.0, id_dropout=0.0))


def one_of(rank: int, world: int, folder: str) -> None:
    """A process of a training that is shared by ``world``; keeps its weights and its curve."""
    torch.set_num_threads(1)
    if world > 1:
        where = f"file://{folder}/meet"
        torch.distributed.init_process_group("gloo", init_method=where, rank=rank, world_size=world)
    feeds, labels = labelled(650, 0)
    stop_feeds, stop_labels = labelled(200, 1)
    model = new_model(PLAIN.ranker, INPUTS, feeds, labels, np.ones(650, np.float32), seed=0)
    teacher = torch.randn(650, 2, generator=torch.Generator().manual_seed(0))
    train = Rows.prepare(model, feeds, torch.from_numpy(labels), torch.rand(650) + 0.5, teacher=teacher)
    stop = Rows.prepare(model, stop_feeds, torch.from_numpy(stop_labels), torch.ones(200))
    told: list[State] = []
    state = fit(model, train, stop, PLAIN, resume=lambda *_: None, save=lambda *_: None, progress=told.append)
    assert bool(told) == (rank == 0)
    Path(folder, f"{world}-{rank}.json").write_text(json.dumps([point["stop_loss"] for point in state.curve]))
    Path(folder, f"{world}-{rank}.safetensors").write_bytes(to_files(model)["model.safetensors"])


def test_two_processes_learn_what_one_does(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(one_of, (1, str(tmp_path)), nprocs=1)
    torch.multiprocessing.spawn(one_of, (2, str(tmp_path)), nprocs=2)
    alone, shared = (json.loads((tmp_path / f"{world}-0.json").read_text()) for world in (1, 2))
    np.testing.assert_allclose(shared, alone, rtol=1e-4)
    both = [(tmp_path / f"2-{rank}.safetensors").read_bytes() for rank in (0, 1)]
    assert both[0] == both[1]


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
