#!/usr/bin/env bash
# The browser tests drive Debian's Chromium: install it where that is allowed, else name it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

command -v chromium >/dev/null || command -v chromium-browser >/dev/null ||
  bash book/tools/debian.sh 'the browser tests need Chromium' chromium
