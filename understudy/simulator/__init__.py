"""A feed with known truth: logs whose signal was planted, for demonstrations and tests."""

from understudy.simulator.kuairand import Generated, generate

__all__ = ["Generated", "generate"]
