#!/usr/bin/env bash
# Make an environment with the dev extra; then ruff, mypy, and the tests. Arguments go to pytest (`-m 'not slow'`, a file).
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/environment.sh dev
# The tools run from the cached dependencies; mft is the one of this checkout.
"$PYTHON" -m ruff check mft scripts tests
"$PYTHON" -m mypy
exec "$PYTHON" -m pytest "$@"
