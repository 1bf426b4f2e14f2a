#!/usr/bin/env bash
# Write constraints.txt: install requirements.txt, without the old lock, into an environment of its
# own, and list what pip chose there. A version's local part (torch's +cpu) is left out, so that the
# lock fits the CPU and the GPU builds alike; whoever installs with it chooses by pip's own settings.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

python=$(bash book/tools/find_python.sh)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$python" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --disable-pip-version-check -r requirements.txt
{
  echo '# The exact versions that `make` and CI install. Written by `make lock`; not edited by hand.'
  "$folder/venv/bin/python" -m pip freeze --all | sed -nE '/^pip==/d; s/^([^=]+==[^+]+)(\+.*)?$/\1/p'
} >"$folder/constraints.txt"
cp "$folder/constraints.txt" constraints.txt
echo "constraints.txt holds $(grep -c '==' constraints.txt) packages; now run: make test"
