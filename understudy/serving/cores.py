"""How many cores this process may use: its container's limit, which the machine's count of cores does not show."""

from pathlib import Path

__all__ = ["cpu_limit"]


def cpu_limit(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Whole cores of the control group's quota (version 2 or 1), at least 1; None: no quota is set.

    https://docs.kernel.org/admin-guide/cgroup-v2.html (``cpu.max``).
    """
    try:
        if (root / "cpu.max").exists():
            quota, period = (root / "cpu.max").read_text().split()
        else:
            quota, period = ((root / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return max(1, int(quota) // int(period)) if int(quota) > 0 else None
    except (OSError, ValueError, ZeroDivisionError):  # "max", or a system without control groups
        return None
