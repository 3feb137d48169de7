"""Understudy keeps a recommendation ranker fresh."""

import os

__version__ = "0.1.0"

# Threads of PyTorch that spin while they wait take the core from whatever else runs, and stand still for it in turn:
# with one busy neighbour on two cores a step took 20 times as long (GNU OpenMP reads this when it is loaded).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
