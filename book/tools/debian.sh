#!/usr/bin/env bash
# debian.sh WHY PACKAGE…: install Debian packages where that is allowed, else name them in one line.
set -euo pipefail

why=$1
shift
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
  echo "$why: as root, apt-get install $*" >&2
  exit 1
fi
echo "$why: installing the Debian package $*"
export DEBIAN_FRONTEND=noninteractive
if ! { apt-get update -qq && apt-get install -qq -y --no-install-recommends "$@"; } </dev/null; then
  echo "$why: apt-get could not install $*" >&2
  exit 1
fi
