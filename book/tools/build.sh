#!/usr/bin/env bash
# Run the chapters that changed and build the pages that follow from them; a warning is an error.
# Executed chapters are kept in a cache below _build, so an interrupted build goes on from there.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" OMP_NUM_THREADS=1

# Sphinx warns about a file when it reads it, and an interrupted build may have read it without
# living to report: then everything is read again. (bookext does the same after a failed build.)
unfinished=_build/.unfinished
mkdir -p _build
if [ -e "$unfinished" ]; then
  rm -f _build/.doctrees/environment.pickle
fi
touch "$unfinished"
.venv/bin/python .venv/bin/jupyter-book build . --toc book/_toc.yml -W -n --keep-going
rm "$unfinished"
echo "the book: $PWD/_build/html/index.html"
