"""``python -m understudy.cli``: the same as ``understudy``."""

from understudy.cli.main import main

main()
