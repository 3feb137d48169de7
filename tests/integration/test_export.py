"""Served files score as their networks do; several processes learn what one does."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_training import CONFIG, INPUTS, RANKER, feeds_of, labelled, trained

from understudy.calibration.fit import Calibrator
from understudy.calibration.module import Calibration
from understudy.inputs import PER_REQUEST, per_row
from understudy.lake import Lake
from understudy.ranker.export import export
from understudy.ranker.files import from_files, to_files
from understudy.ranker.fitting import as_tensors, new_model
from understudy.ranker.network import RankerModel
from understudy.ranker.preprocess import split
from understudy.ranker.served import Served
from understudy.training.batches import Rows
from understudy.training.loop import State, fit

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
