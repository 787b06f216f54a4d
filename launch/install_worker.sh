#!/usr/bin/env bash
# Installs the repository that this file is in, on the machine that it runs on, into its .venv.
#
# Usage: install_worker.sh EXTRAS     for example tpu,gcs
#
# TPU VM images come with Python 3.10 and this package needs 3.11, so uv brings an interpreter of its
# own; nothing outside of the repository and uv's own cache is changed.
set -euo pipefail

readonly PYTHON=3.12
extras=${1:?write the extras to install, for example tpu,gcs}
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

uv=$(type -P uv || true)
if [[ -z $uv ]]; then
  tools=$root/.uv
  python3 -m pip install --quiet --target "$tools" uv
  uv=$tools/bin/uv
fi
[[ -x $root/.venv/bin/python ]] || "$uv" venv --quiet --python "$PYTHON" "$root/.venv"
"$uv" pip install --quiet --python "$root/.venv/bin/python" --editable "${root}[$extras]"
"$root/.venv/bin/python" -c 'import avit_jax, sys; print("avit_jax", avit_jax.__version__, "on Python", sys.version.split()[0])'
