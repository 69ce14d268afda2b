# Sourced by quickstart.sh and test.sh: makes two environments and sets PYTHON to the second one's interpreter.
#
# 1. The dependencies, in a cache that every checkout shares. Its key is a hash of pyproject.toml, the Python version and the extra.
# 2. .venv in this checkout: mft itself (editable), on top of the cached dependencies. A fresh clone tests itself.
#
# usage: source scripts/environment.sh [EXTRA]

EXTRA="${1:-}"
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
BASE_PYTHON="${MFT_PYTHON:-python3}"
if ! "$BASE_PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "mft needs Python 3.11 or newer; '$BASE_PYTHON' is $("$BASE_PYTHON" -V 2>&1). Set MFT_PYTHON to another interpreter." >&2
    exit 2
fi
# DeepSpeed would otherwise try to compile its CUDA operators while it is installed.
export DS_BUILD_OPS=0 PIP_DISABLE_PIP_VERSION_CHECK=1

KEY="$("$BASE_PYTHON" - "$ROOT/pyproject.toml" "$EXTRA" <<'PYTHON'
import hashlib, pathlib, sys
facts = pathlib.Path(sys.argv[1]).read_bytes() + f"{sys.version_info[:3]} {sys.prefix} {sys.argv[2]}".encode()
print(hashlib.sha256(facts).hexdigest()[:16])
PYTHON
)"
CACHE="${XDG_CACHE_HOME:-$HOME/.cache}/mft"
DEPENDENCIES="$CACHE/venv-$KEY"
mkdir -p "$CACHE"

install_dependencies() {
    [ -f "$DEPENDENCIES/.complete" ] && return
    echo "installing the dependencies into $DEPENDENCIES (once for each pyproject.toml)" >&2
    rm -rf "$DEPENDENCIES"
    "$BASE_PYTHON" -m venv "$DEPENDENCIES"
    "$BASE_PYTHON" - "$ROOT/pyproject.toml" "$EXTRA" > "$DEPENDENCIES/requirements.txt" <<'PYTHON'
import sys, tomllib
project = tomllib.load(open(sys.argv[1], "rb"))
extra = project["project"]["optional-dependencies"][sys.argv[2]] if sys.argv[2] else []
print("\n".join(project["project"]["dependencies"] + extra + project["build-system"]["requires"]))
PYTHON
    "$DEPENDENCIES/bin/python" -m pip install --quiet --requirement "$DEPENDENCIES/requirements.txt" editables
    touch "$DEPENDENCIES/.complete"
}

# Two checkouts that start at the same time must not install into one folder together.
if command -v flock >/dev/null; then
    exec 9> "$CACHE/lock-$KEY"
    flock 9
    install_dependencies
    flock -u 9
    exec 9>&-
else
    install_dependencies
fi

PYTHON="$ROOT/.venv/bin/python"
if [ ! -x "$PYTHON" ] || [ "$(cat "$ROOT/.venv/.key" 2>/dev/null)" != "$KEY $ROOT" ]; then
    rm -rf "$ROOT/.venv"
    "$BASE_PYTHON" -m venv --without-pip "$ROOT/.venv"
    SITE="$("$PYTHON" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')"
    "$DEPENDENCIES/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])' > "$SITE/_mft_dependencies.pth"
    "$DEPENDENCIES/bin/python" -m pip --python "$PYTHON" install --quiet --no-deps --no-build-isolation --editable "$ROOT"
    echo "$KEY $ROOT" > "$ROOT/.venv/.key"
fi
