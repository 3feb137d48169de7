"""The ceiling: what the product's own network could know, had it the true probabilities and far more data.

It learns from the same features in the same window, but from candidates that were never shown too, and
from their true probabilities instead of outcomes.
"""

from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from understudy.inputs import Feeds, Inputs, batches
from understudy.simulator.config import World
from understudy.simulator.feed import times_us
from understudy.simulator.live import Live
from understudy.simulator.scoring import Model
from understudy.simulator.traffic import Requests
from understudy.simulator.world import ACTIONS, State, truth
from understudy.training.config import Training

__all__ = ["Ceiling"]

_WIDTH = 100  # candidates of a request that are learned from
_EPOCHS, _BATCH, _RATE = 3, 2048, 3e-3


@dataclass
class Ceiling:
    """Rows to learn from, gathered while the feed runs.

    Args:
        training: the product's own settings.
        times: rows per row that the product logs.
        days: of the product's window; older rows are dropped.
    """

    training: Training
    inputs: Inputs
    times: int
    days: int
    parts: list[tuple[int, Feeds, npt.NDArray[np.float32]]] = field(default_factory=list)

    def gather(self, state: State, world: World, live: Live, requests: Requests, kept: int) -> None:
        """Take candidates of a span of requests.

        Args:
            kept: rows that the product's log keeps of it.
        """
        if not len(requests):
            return
        count, candidates = requests.candidates.shape
        width = min(candidates, _WIDTH)
        wanted = min(count, max(1, round(self.times * kept / width)))
        requests = requests.take(np.linspace(0, count - 1, wanted).astype(np.intp))
        items = requests.candidates[:, :width]
        true = truth(state, requests.users, items, requests.surfaces, requests.time_days).stacked()
        own = [ACTIONS.index(head) for head in self.inputs.heads]
        feeds = live.feeds(requests.users, requests.surfaces, times_us(world, requests), items)
        day = int(requests.time_days[0])
        self.parts.append((day, feeds, true.reshape(-1, len(ACTIONS))[:, own].astype(np.float32)))
        self.parts = [part for part in self.parts if part[0] > day - self.days]

    def rows(self) -> int:
        return sum(len(labels) for _, _, labels in self.parts)

    def fit(self) -> Model:
        """Train on what was gathered; nothing stops it early, for the truth can't be overfitted by chance alone."""
        import torch

        from understudy.ranker.fitting import as_tensors, new_model
        from understudy.training.batches import Rows
        from understudy.training.loop import fit

        torch.set_num_threads(self.training.threads)
        feeds = {name: np.concatenate([part[1][name] for part in self.parts]) for name in self.inputs.shapes()}
        labels = np.concatenate([part[2] for part in self.parts])
        weights = np.ones(len(labels), np.float32)
        ranker = replace(self.training.ranker, dropout=0.0)
        config = replace(
            self.training, ranker=ranker, epochs=_EPOCHS, batch_size=_BATCH, learning_rate=_RATE, patience=1_000
        )
        model = new_model(ranker, self.inputs, feeds, labels, weights, config.seed)
        rows = Rows.prepare(model, feeds, torch.from_numpy(labels), torch.from_numpy(weights))
        del feeds
        stop = rows.take(torch.arange(0, len(labels), max(1, len(labels) // 20_000)))
        fit(model, rows, stop, config, resume=lambda *_: None, save=lambda *_: None, progress=lambda _: None)
        model.eval()

        def probabilities(feeds: Feeds) -> npt.NDArray[np.float64]:
            found = []
            with torch.no_grad():
                for batch in batches(feeds, _BATCH):
                    found.append(torch.sigmoid(model(as_tensors(batch))).numpy())
            return np.concatenate(found).astype(np.float64)

        return probabilities
