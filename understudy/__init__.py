"""Understudy keeps a recommendation ranker fresh."""

__version__ = "0.1.0"
