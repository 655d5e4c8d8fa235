#!/bin/sh
# Freeze the program (dist/isthmus/ and dist/isthmus-onefile) and put the launcher beside it.
# Only what changed since the last time is built again.
set -eu
cd "$(dirname "$0")/.."

packages=$(.venv/bin/python -c 'import tomllib; print(*sorted({name.split(".")[0] for name in
    tomllib.load(open("pyproject.toml", "rb"))["tool"]["setuptools"]["packages"]}))')
# shellcheck disable=SC2086 # a list of names
sources=$(find $packages conf pyproject.toml tools/dist.sh tools/isthmus.spec requirements.lock \
    -type f -not -name '*.pyc' | sort | xargs sha256sum | sha256sum)
if [ "$(cat build/dist.sha256 2> /dev/null)" != "$sources" ] || [ ! -x dist/isthmus/isthmus ]; then
    printf '==> freezing the program (about half a minute)\n'
    rm -rf dist build/isthmus
    # Equal sources give equal bytes: no order by chance, no times.
    PYTHONHASHSEED=0 SOURCE_DATE_EPOCH=0 .venv/bin/python -m PyInstaller --log-level WARN \
        --noconfirm --workpath build --distpath dist tools/isthmus.spec
    printf '%s\n' "$sources" > build/dist.sha256
fi
cp build/launcher/isthmus-launcher dist/isthmus-launcher
du -sh dist/isthmus dist/isthmus-onefile dist/isthmus-launcher
glibc=$(find dist/isthmus -type f \( -name isthmus -o -name '*.so*' \) -exec strings -a {} + |
    sed -n 's/^GLIBC_\([0-9.]*\)$/\1/p' | sort -V | tail -1)
printf 'runs on %s with glibc %s or newer\n' "$(uname -m)" "$glibc"
