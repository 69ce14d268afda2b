#!/usr/bin/env bash
# Make an environment, install mft, run `mft quickstart`. Needs git, Python >= 3.11 with pip, and a C compiler.
# Arguments go to `mft quickstart` (`--out DIR`, `--overwrite`).
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/environment.sh
exec "$PYTHON" -m mft quickstart "$@"
