#!/usr/bin/env bash
# One lock file per role, from the extras in pyproject.toml.
set -euo pipefail
cd "$(dirname "$0")/.."
lock() {
  local role=$1; shift
  uv pip compile --quiet pyproject.toml "$@" --python-version 3.11 ${FIND_LINKS:+--find-links "$FIND_LINKS"} \
    --no-emit-find-links --no-emit-index-url --no-header --no-annotate | sed 's/+cpu//' > "requirements/$role.txt"
}
# The whole environment first; the roles then take the same versions.
lock local --all-extras
lock spark --constraint requirements/local.txt --extra spark
lock s3 --constraint requirements/local.txt --extra s3
lock tools --constraint requirements/local.txt --extra tools
lock train --constraint requirements/local.txt --extra train
lock pipeline --constraint requirements/local.txt --extra pipeline
lock collect --constraint requirements/local.txt --extra collect
lock serve --constraint requirements/local.txt --extra serve
