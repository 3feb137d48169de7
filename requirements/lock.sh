#!/usr/bin/env bash
# One lock file per role, from the extras in pyproject.toml.
set -euo pipefail
cd "$(dirname "$0")/.."
lock() {
  local role=$1; shift
  uv pip compile --quiet pyproject.toml "$@" --python-version 3.11 ${FIND_LINKS:+--find-links "$FIND_LINKS"} \
    --no-emit-find-links --no-emit-index-url --no-header --no-annotate | sed 's/+cpu//' > "requirements/$role.txt"
}
lock local --all-extras
lock spark --extra spark
lock tools --extra tools
lock train --extra train
lock pipeline --extra pipeline
