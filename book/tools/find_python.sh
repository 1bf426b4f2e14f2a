#!/usr/bin/env bash
# Print the first Python that can make the environment: 3.11 or newer, with venv and ensurepip.
# $PYTHON, if set, is the only one tried. Where none fits, say in one line what to install.
set -euo pipefail

if [ -n "${PYTHON:-}" ]; then
  candidates=("$PYTHON")
else
  candidates=(python3.13 python3.12 python3.11 python3)
fi

bare=''
for python in "${candidates[@]}"; do
  # A version manager leaves names on the PATH that only print an error: run it to know.
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue
  if "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    echo "$python"
    exit
  fi
  bare=${bare:-$python}
done

if [ -n "$bare" ]; then
  version=$("$bare" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
  echo "$bare cannot make an environment: as root, apt-get install python$version-venv" >&2
else
  echo "no Python 3.11 or newer found (tried ${candidates[*]}):" \
    "as root, apt-get install python3 python3-venv (Debian 12 or newer)" >&2
fi
exit 1
