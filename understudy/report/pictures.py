"""The report's pictures, as SVG that stands in the page itself."""

import io
from typing import Any

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.figure import Figure

__all__ = ["curve", "days", "differences", "drift", "lifts", "reliability", "roc", "seconds"]

_STYLE = {
    "svg.hashsalt": "understudy",
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
}
_BLUE, _GREY, _RED, _AMBER = "#2563eb", "#94a3b8", "#dc2626", "#d97706"
_COLOURS = {"pass": _BLUE, "report": _GREY, "warn": _AMBER, "fail": _RED}


def reliability(heads: dict[str, Any]) -> Markup:
    """Observed rate over mean prediction, before and after calibration, a panel per head."""
    with mpl.rc_context(_STYLE):
        figure, axes = _panels(len(heads), 2.8)
        for axis, (head, bins) in zip(axes, heads.items(), strict=True):
            top = max(max(point[:2]) for side in bins.values() for point in side) * 1.05
            axis.plot([0, top], [0, top], color=_GREY, linewidth=1, linestyle="--")
            for side, colour in (("before", _GREY), ("after", _BLUE)):
                axis.plot([b[0] for b in bins[side]], [b[1] for b in bins[side]], "o-", ms=3, color=colour, label=side)
            axis.set(title=head, xlabel="mean prediction", ylabel="observed rate", xlim=(0, top), ylim=(0, top))
        axes[0].legend(frameon=False)
        return _svg(figure)


def roc(heads: dict[str, Any]) -> Markup:
    """True over false positive rate, a line per head."""
    with mpl.rc_context(_STYLE):
        figure, axes = _panels(1, 3.2)
        axes[0].plot([0, 1], [0, 1], color=_GREY, linewidth=1, linestyle="--")
        for head, points in heads.items():
            axes[0].plot([p[0] for p in points], [p[1] for p in points], label=head)
        axes[0].set(xlabel="false positive rate", ylabel="true positive rate")
        axes[0].legend(frameon=False)
        return _svg(figure)


def curve(points: list[dict[str, float]], best: int) -> Markup:
    """Loss on training and early-stopping rows over epochs; a mark at the best."""
    with mpl.rc_context(_STYLE):
        figure, axes = _panels(1, 3.2)
        epochs = [p["epoch"] for p in points]
        axes[0].plot(epochs, [p["train_loss"] for p in points], color=_GREY, label="training rows")
        axes[0].plot(epochs, [p["stop_loss"] for p in points], color=_BLUE, label="early-stopping rows")
        axes[0].plot(epochs[best], points[best]["stop_loss"], "o", color=_BLUE)
        axes[0].set(xlabel="epoch", ylabel="loss, sum over heads")
        axes[0].legend(frameon=False)
        return _svg(figure)


def drift(columns: list[dict[str, Any]]) -> Markup:
    """How much of its bound each column uses; the twenty that use most."""
    used = sorted(
        ((c["psi"] / c["bound"], c) for c in columns if not c["column"].startswith("label_")), key=lambda u: u[0]
    )
    shown = used[-20:]
    with mpl.rc_context(_STYLE):
        figure, axes = _panels(1, 0.6 + 0.2 * max(1, len(shown)), width=8.0)
        names = [c["column"] for _, c in shown]
        axes[0].barh(names, [min(share, 2.0) for share, _ in shown], color=[_COLOURS[c["outcome"]] for _, c in shown])
        axes[0].axvline(1.0, color=_RED, linewidth=1)
        axes[0].set(xlabel="PSI as a share of its bound")
        return _svg(figure)


def seconds(steps: dict[str, float]) -> Markup:
    """Seconds that each step worked."""
    with mpl.rc_context(_STYLE):
        figure, axes = _panels(1, 0.6 + 0.25 * len(steps), width=8.0)
        names = list(steps)[::-1]
        axes[0].barh(names, [steps[name] for name in names], color=_BLUE)
        axes[0].set(xlabel="seconds")
        return _svg(figure)


def days(out_of_time: dict[str, Any]) -> Markup:
    """Production on days that it had not seen: calibration ratio per day and head."""
    with mpl.rc_context(_STYLE):
        figure, axes = _panels(2, 2.8)
        names = sorted(out_of_time["by_day"])
        for axis, metric in zip(axes, ("auc", "calibration_ratio"), strict=True):
            for head in out_of_time["heads"]:
                axis.plot(names, [out_of_time["by_day"][day][head][metric] for day in names], "o-", ms=3, label=head)
            axis.set(title=metric.replace("_", " "))
            axis.tick_params(axis="x", rotation=30)
        axes[1].axhline(1.0, color=_GREY, linewidth=1, linestyle="--")
        axes[0].legend(frameon=False)
        return _svg(figure)


def differences(heads: dict[str, Any]) -> Markup:
    """Difference in AUC from the first configuration, with its interval, a panel per head."""
    with mpl.rc_context(_STYLE):
        figure, axes = _panels(len(heads), 3.2)
        for axis, (head, found) in zip(axes, heads.items(), strict=True):
            others = {name: one["difference"] for name, one in found.items() if "difference" in one}
            for place, diff in enumerate(others.values()):
                low, high = diff["auc_interval"]
                axis.plot([low, high], [place, place], color=_BLUE, linewidth=2)
                axis.plot(diff["auc"], place, "o", color=_BLUE)
            axis.axvline(0, color=_GREY, linewidth=1)
            axis.set(title=head, xlabel="AUC − first", yticks=range(len(others)), yticklabels=list(others))
            axis.set_ylim(len(others) - 0.5, -0.5)
        return _svg(figure)


def lifts(by_day: dict[str, dict[str, float]], names: list[str], shift: str | None) -> Markup:
    """Share of the oracle's lift over random per day, a line per ranker; a mark where tastes shift."""
    colours = {"refreshed": _BLUE, "frozen": _RED, "popularity": _GREY, "ceiling": _AMBER}
    days = sorted(by_day)
    with mpl.rc_context(_STYLE):
        figure, axes = _panels(1, 3.8, width=9.0)
        for name in names:
            known = [place for place, day in enumerate(days) if name in by_day[day]]
            shares = [100 * by_day[days[place]][name] for place in known]
            axes[0].plot(known, shares, "o--" if name == "ceiling" else "o-", ms=3, label=name, color=colours[name])
        if shift in days:
            place = days.index(shift)
            axes[0].axvline(place, color=_GREY, linewidth=1, linestyle=":")
            axes[0].annotate("tastes shift", (place, 2), (4, 0), textcoords="offset points", fontsize=8, color=_GREY)
        axes[0].set(ylabel="% of the oracle's lift over random", ylim=(0, 100))
        axes[0].set_xticks(range(len(days)), days, rotation=60)
        axes[0].legend(frameon=False, ncols=4, loc="upper left")
        return _svg(figure)


def _panels(count: int, height: float, width: float | None = None) -> tuple[Figure, Any]:
    figure = Figure(figsize=(width or max(4.2, 3.1 * count), height), layout="constrained")
    return figure, figure.subplots(1, count, squeeze=False)[0]


def _svg(figure: Figure) -> Markup:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return Markup(text[text.index("<svg") :])
