#!/usr/bin/env bash
# bench/peers/run.sh [--agree | --times] [OPTION...]: segrun beside other programs, on this machine.
#
# Makes a virtual environment with the versions of requirements.txt (6 GB, from the package index),
# builds segc and segrun, checks that all compute the same (agree.py), and times them in turns
# (turns.py; further options are its own). The last lines are a table; all numbers
# go to bench/results/peers-DATE.json.
#
#   --agree, --times     only that
#   --quick              batch 2 only, three turns, without tinygrad: ten minutes
#   --only unet-train    cases whose name begins so
#
# PEERS_VENV=FOLDER uses an environment that is there (default bench/peers/venv), PYTHON=FILE another
# Python than python3. Neither the build nor the tests need any of this.
set -euo pipefail

fail() {
    echo "run.sh: error: $1" >&2
    [ $# = 1 ] || echo "hint: $2" >&2
    exit 3
}

make_venv() {
    local asked=${PYTHON:-python3} wanted log=$work/pip.log
    wanted=$(cat bench/peers/requirements.txt)
    [ "$(cat "$venv/installed.txt" 2>/dev/null)" != "$wanted" ] || return 0
    command -v "$asked" >/dev/null \
        || fail "there is no $asked" "Debian: apt install python3 python3-venv; or PYTHON=..."
    "$asked" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
        || fail "$("$asked" --version) is too old: the packages need 3.11" "PYTHON=... names another"
    if [ ! -x "$venv/bin/python" ]; then
        "$asked" -m venv "$venv" >"$log" 2>&1 \
            || fail "$asked -m venv $venv failed: see $log" "Debian: apt install python3-venv"
    fi
    echo "installing into $venv: $(tr '\n' ' ' <bench/peers/requirements.txt)"
    "$venv/bin/python" -m pip install --disable-pip-version-check \
        -r bench/peers/requirements.txt >"$log" 2>&1 \
        || fail "pip failed: $(grep -m 1 -E '^ERROR' "$log" || echo "see $log")" \
            "it needs the package index, or one that PIP_INDEX_URL names, and 6 GB; log: $log"
    printf '%s\n' "$wanted" >"$venv/installed.txt"
}

build() {
    local log=$work/build.log
    command -v make >/dev/null || fail "there is no make"
    make --no-print-directory -j"$(nproc)" all >"$log" 2>&1 \
        || fail "the build failed: see $log" "$(tail -n 3 "$log")"
    "${CC:-cc}" -std=gnu17 -O2 -D_GNU_SOURCE= -Iruntime -o "$work/ours" bench/peers/ours.c \
        build/runtime.a -fopenmp -ldl -lpthread -lm -Wl,--no-as-needed -lgomp >>"$log" 2>&1 \
        || fail "bench/peers/ours.c does not build: see $log"
}

cd "$(dirname "$0")/../.."
parts='agree times' quick=''
for word; do
    case $word in
        --agree) parts=agree; shift ;;
        --times) parts=times; shift ;;
        --quick) quick=1; break ;;
        --help | -h) sed -n '2,/^set /s/^# \{0,1\}//p' "$0" | head -n -1; exit ;;
        *) break ;;
    esac
done
venv=${PEERS_VENV:-bench/peers/venv} work=build/peers code=0
mkdir -p "$work"
make_venv
build
if [[ $parts = *agree* ]]; then
    "$venv/bin/python" bench/peers/agree.py ${quick:+--who 'ours,pytorch-compiled,jax,onnxruntime,openvino'} || code=1
fi
if [[ $parts = *times* ]]; then
    "$venv/bin/python" bench/peers/turns.py --work "$work" \
        --json "bench/results/peers-$(date -u +%Y%m%d).json" "$@" || code=1
fi
exit $code
