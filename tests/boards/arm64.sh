#!/bin/bash
# An arm64 board under qemu-user: its own userland, Python and TVM runtime, from Debian packages and PyPI.
#
#   tests/boards/arm64.sh setup [--cache DIR]               download and unpack once, print the folder
#   tests/boards/arm64.sh run   [--cache DIR] -- ARGS...    python3.11 ARGS... on the board, as this very process
#
# DIR is $XDG_CACHE_HOME/hwnas/boards/arm64 where it is not given. $PYTHON is a Python with pip, the project's own where
# it is not given. Nothing is installed on this machine: no root, no chroot, no binfmt, no mount. It leaves with 77 and
# one line where the board cannot be set up here. Times on the board are the emulator's and say nothing of hardware.
set -euo pipefail

cannot() {
    echo "no arm64 board here: $*" >&2
    exit 77
}

usage() {
    sed -n '4,5s/^# *//p' "$0" >&2
    exit 2
}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
project=$(dirname "$(dirname "$here")")
[ $# -gt 0 ] || usage
action=$1
shift
case $action in setup | run) ;; *) usage ;; esac
cache=${XDG_CACHE_HOME:-${HOME:?}/.cache}/hwnas/boards/arm64
if [ "${1:-}" = --cache ]; then
    [ -n "${2:-}" ] || usage
    cache=$2
    shift 2
fi
[ "${1:-}" != -- ] || shift

python=${PYTHON:-$project/.venv/bin/python}
[ -x "$python" ] || python=$(command -v python3) || cannot "there is no Python: set PYTHON"

debs="libc6 libgcc-s1 libstdc++6 libgomp1 zlib1g libexpat1 libssl3 libffi8 liblzma5 libbz2-1.0 libuuid1 libcrypt1
    python3.11-minimal libpython3.11-minimal libpython3.11-stdlib"
wheels="apache-tvm apache-tvm-ffi numpy ml_dtypes psutil typing_extensions tornado cloudpickle"
tags="manylinux_2_28_aarch64 manylinux_2_27_aarch64 manylinux_2_26_aarch64 manylinux_2_24_aarch64 manylinux_2_17_aarch64
    manylinux2014_aarch64"

# other pins or another recipe are another board: a folder is never changed once it is there
pins=$(for wheel in $wheels; do grep -i "^$wheel==" "$project/constraints.txt" || cannot "constraints.txt pins no $wheel"; done)
board=$cache/$({ echo "$pins" && cat "${BASH_SOURCE[0]}"; } | sha256sum | cut -c1-16)

board_python() {
    # a preloaded library is for this machine, not for the board; the wheels of the board hold no compiler
    exec "$board/bin/qemu-aarch64" -cpu cortex-a72 -L "$board/root" -U LD_PRELOAD -U LD_LIBRARY_PATH \
        -E PYTHONHOME="$board/root/usr" -E PYTHONPATH="$board/site" -E TVM_USE_RUNTIME_LIB=1 -E TVM_NUM_THREADS=1 \
        -E OMP_NUM_THREADS=1 -E OPENBLAS_NUM_THREADS=1 "$board/root/usr/bin/python3.11" "$@"
}

fetch_debs() { # architecture, folder, packages: their files into the folder, by a package list that is not the system's
    local architecture=$1 folder=$2
    shift 2
    mkdir -p "$folder/lists/partial" "$folder/archives/partial" "$folder/debs"
    local apt=(apt-get -q "-oAPT::Architecture=$architecture" "-oAPT::Architectures=$architecture"
        "-oDir::State::Lists=$folder/lists" "-oDir::Cache=$folder" -oDir::State::status=/dev/null
        -oAcquire::Languages=none "-oAPT::Sandbox::User=$(id -un)")
    # a source of other packages may be out of order: what counts is whether ours come
    "${apt[@]}" update >"$folder/log" 2>&1 || true
    (cd "$folder/debs" && "${apt[@]}" download "$@") >>"$folder/log" 2>&1 ||
        cannot "apt-get brings not all packages for $architecture: $(grep -m1 '^E:' "$folder/log")"
}

unpack_wheels() { # folder of wheels, site folder
    "$python" - "$@" <<'PY'
import sys, zipfile
from pathlib import Path

for wheel in Path(sys.argv[1]).glob("*.whl"):
    with zipfile.ZipFile(wheel) as archive:
        # 250 MB that compile, where the board only runs
        archive.extractall(sys.argv[2], [n for n in archive.namelist() if not n.endswith("libtvm_compiler.so")])
PY
}

set_up() {
    command -v apt-get >/dev/null && command -v dpkg >/dev/null || cannot "its packages come by apt-get and dpkg"
    "$python" -m pip --version >/dev/null 2>&1 || cannot "$python has no pip: set PYTHON to one that has"
    draft=$board.draft
    rm -rf "$cache"/*.draft # one that was killed
    mkdir -p "$draft"/{root,site,bin,work}
    trap 'rm -rf "$draft"' EXIT

    fetch_debs arm64 "$draft/work/arm64" $debs
    for deb in "$draft"/work/arm64/debs/*.deb; do dpkg -x "$deb" "$draft/root"; done
    if qemu=$(command -v qemu-aarch64-static); then
        cp "$qemu" "$draft/bin/qemu-aarch64"
    else
        fetch_debs "$(dpkg --print-architecture)" "$draft/work/qemu" qemu-user-static
        dpkg -x "$draft"/work/qemu/debs/*.deb "$draft/work/qemu/root"
        mv "$draft/work/qemu/root/usr/bin/qemu-aarch64-static" "$draft/bin/qemu-aarch64"
    fi
    "$python" -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.11 $(printf -- '--platform %s ' $tags) \
        --dest "$draft/work/wheels" $pins >"$draft/work/pip" 2>&1 ||
        cannot "pip brings not all wheels for aarch64: $(grep -m1 ERROR "$draft/work/pip")"
    unpack_wheels "$draft/work/wheels" "$draft/site"
    # the first import also writes the byte code, which takes the emulator longer than all the rest of a start
    (board=$draft board_python -c 'import platform, numpy, tvm.rpc; assert platform.machine() == "aarch64"') 2>"$draft/work/start" ||
        cannot "its Python does not start: $(tail -1 "$draft/work/start")"
    rm -rf "$draft/work"
    mv "$draft" "$board"
    trap - EXIT
}

if [ ! -d "$board" ]; then
    mkdir -p "$cache"
    exec 9>"$cache/lock"
    flock 9 # a second set-up waits for the first
    [ -d "$board" ] || set_up
    exec 9>&-
fi
case $action in
setup) echo "$board" ;;
run) board_python "$@" ;;
esac
