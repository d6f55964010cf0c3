#!/usr/bin/env bash
# What a developer runs before a commit: style, types, tests, and the tiny regression. --static stops after the types.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

ruff check .
ruff format --check .
# mypy wants a folder that is called as the package is.
ln -s "$PWD" "$work/mclip"
MYPYPATH=$work mypy -p mclip.pipeline -p mclip.training -m mclip.cli
[ "${1:-}" = --static ] && exit 0
pytest -q
mclip run workflows/tiny.toml --folder "$work/tiny" --check
