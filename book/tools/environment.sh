#!/usr/bin/env bash
# Make .venv, or bring it up to date with requirements.txt and constraints.txt.
# The stamp is written last, so an interrupted run goes on where it stopped, and it holds a hash of
# both files, so that a run with nothing to do costs nothing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

stamp=.venv/.complete
wanted=$(cat requirements.txt constraints.txt | sha256sum)

runs() { [ -x .venv/bin/python ] && .venv/bin/python -c "$1" 2>/dev/null; }

if [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] && runs 'pass'; then
  exit
fi
rm -f "$stamp"

if ! runs 'import pip, sys; sys.exit(sys.version_info < (3, 11))'; then
  if ! python=$(bash book/tools/find_python.sh 2>/dev/null) && [ "$(id -u)" = 0 ] &&
    command -v apt-get >/dev/null && [ -z "${PYTHON:-}" ]; then
    bash book/tools/debian.sh 'the environment needs Python and its venv module' python3 python3-venv
  fi
  python=$(bash book/tools/find_python.sh)
  echo "making the environment in .venv with $("$python" --version)"
  "$python" -m venv --clear .venv
fi
echo 'installing what requirements.txt lists, in the versions of constraints.txt'
.venv/bin/python -m pip install --disable-pip-version-check -r requirements.txt -c constraints.txt
.venv/bin/python -m pip check --disable-pip-version-check
echo "$wanted" >"$stamp"
