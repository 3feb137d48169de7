"""Several configurations, trained on one window and told apart by paired figures."""

from understudy.comparison.compare import compare

__all__ = ["compare"]
