#!/usr/bin/env bash
# Write constraints.txt: install requirements.txt, without the old lock, into an environment of its
# own, and list what pip chose there. A version's local part (torch's +cpu) is left out, so that the
# lock fits the CPU and the GPU builds alike; whoever installs with it chooses by pip's own settings.
# The GPU build, which is the default one of the package index, asks for one version of Triton, the CPU
# build for none: so the lock has that one.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

python=$(bash book/tools/find_python.sh)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$python" -m venv "$folder/venv"
pip() { "$folder/venv/bin/python" -m pip "$@"; }
pip install --disable-pip-version-check -r requirements.txt
torch=$(pip freeze --all | sed -nE 's/^torch==([^+]+).*$/\1/p')
# "===" leaves out builds with a local part; a dry run only reads what it asks for
pip install --disable-pip-version-check --dry-run --quiet --ignore-installed --no-deps \
  --report "$folder/torch.json" "torch===$torch"
triton=$("$folder/venv/bin/python" - "$folder/torch.json" <<'PYTHON'
import json, sys
from pip._vendor.packaging.requirements import Requirement
torch = json.load(open(sys.argv[1], encoding="utf-8"))["install"][0]["metadata"]
asked = [Requirement(text) for text in torch["requires_dist"]]
print(*(f"{r.name}{r.specifier}" for r in asked if r.name == "triton"))
PYTHON
)
if [ -n "$triton" ]; then # no GPU build for this system, no Triton
  pip install --disable-pip-version-check "$triton"
fi
{
  echo '# The exact versions that `make` and CI install. Written by `make lock`; not edited by hand.'
  pip freeze --all | sed -nE '/^pip==/d; s/^([^=]+==[^+]+)(\+.*)?$/\1/p'
} >"$folder/constraints.txt"
cp "$folder/constraints.txt" constraints.txt
echo "constraints.txt holds $(grep -c '==' constraints.txt) packages; now run: make test"
