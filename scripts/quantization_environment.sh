#!/usr/bin/env bash
# Make the environment of its own in which gptqmodel lives, once: `mft quantize` starts its worker there.
#
# usage: scripts/quantization_environment.sh
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
exec "$PYTHON" -m mft quantize --setup
