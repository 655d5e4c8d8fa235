#!/bin/sh
# Write requirements.lock anew from pyproject.toml: every version and hash, and no address of
# a package index.
set -eu
cd "$(dirname "$0")/.."

.venv/bin/pip-compile --quiet --generate-hashes --allow-unsafe --strip-extras --no-header \
    --no-emit-index-url --no-emit-find-links --no-emit-trusted-host \
    --extra dev --output-file requirements.lock pyproject.toml "$@"
