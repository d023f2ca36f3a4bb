#!/bin/sh
# Makes or renews .venv from constraints.txt. `make setup` calls it when .venv is missing, half made, or older than
# what it is made from. Reads PYTHON, TORCH, TORCH_INDEX and VENV from the environment.
set -eu

VENV=${VENV:-.venv}
PYTHON=${PYTHON:-}
TORCH=${TORCH:-torch==2.13.0}
TORCH_INDEX=${TORCH_INDEX:-}
LOG=$VENV/setup.log
NEEDED_MIB=4000 # what a finished .venv takes, and the packages on their way in

stop() {
    printf 'make setup: %s\n' "$1" >&2
    exit 1
}

new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

find_python() {
    if [ -n "$PYTHON" ]; then
        command -v "$PYTHON" >/dev/null 2>&1 || stop "there is no program '$PYTHON' (from PYTHON=)"
        new_enough "$PYTHON" || stop "Python 3.11 or newer is needed, but $PYTHON is $("$PYTHON" --version 2>&1)"
        return
    fi
    for PYTHON in python3 python3.13 python3.12 python3.11 python3.14 python; do
        if command -v "$PYTHON" >/dev/null 2>&1 && new_enough "$PYTHON"; then return; fi
    done
    stop "Python 3.11 or newer is needed and none is on the PATH; install one, or name it: make setup PYTHON=/path/to/python3.11"
}

check_python() {
    # Debian and Ubuntu ship venv without ensurepip, and say so only half-way through.
    "$PYTHON" -c 'import ensurepip, venv' >/dev/null 2>&1 ||
        stop "$PYTHON cannot make virtual environments; install its venv module (Debian and Ubuntu: apt install python3-venv)"
}

check_disk() {
    free=$(df -Pk . | awk 'NR == 2 { print int($4 / 1024) }')
    [ "$free" -ge "$NEEDED_MIB" ] || stop "$NEEDED_MIB MiB of disk are needed here and $free are free"
}

# What pip's own words mean to somebody who has never seen them.
explain() {
    if grep -q 'No space left on device' "$LOG"; then
        stop "the disk is full; free some space, then run it again (pip's own words: $LOG)"
    elif grep -qE 'Failed to establish a new connection|NameResolutionError|Network is unreachable|timed out|Connection(Reset|Refused)?Error|ProxyError' "$LOG"; then
        stop "the package index cannot be reached; check the network or pip's settings, then run it again (pip's own words: $LOG)"
    elif grep -q 'from versions: none' "$LOG"; then
        stop "the package index has nothing for $1 and $("$PYTHON" --version) here; check the network or pip's settings, then run it again (pip's own words: $LOG)"
    elif grep -q 'No matching distribution' "$LOG"; then
        stop "$(grep -m 1 -o 'No matching distribution.*' "$LOG"), for $("$PYTHON" --version) on this machine (pip's own words: $LOG)"
    fi
    tail -n 5 "$LOG" >&2
    stop "pip could not install $1 (pip's own words: $LOG)"
}

pip_install() {
    what=$1
    shift
    printf 'make setup: installing %s\n' "$what" >&2
    "$VENV/bin/python" -m pip install --disable-pip-version-check --no-input "$@" >>"$LOG" 2>&1 || explain "$what"
}

[ -f pyproject.toml ] && [ -f constraints.txt ] || stop "run it from the folder that pyproject.toml is in"

# Without the stamp .venv is half made: pip does not mend what it was interrupted in, so begin anew.
if [ ! -f "$VENV/.installed" ] || [ ! -x "$VENV/bin/python" ]; then
    find_python
    check_python
    check_disk
    printf 'make setup: making %s with %s\n' "$VENV" "$("$PYTHON" --version)" >&2
    "$PYTHON" -m venv --clear "$VENV" || stop "$PYTHON could not make $VENV"
else
    PYTHON=$VENV/bin/python
fi
rm -f "$VENV/.installed"
: >"$LOG"

grep -v '^torch==' constraints.txt >"$VENV/constraints.txt"
pip_install "$TORCH" ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} "$TORCH" -c "$VENV/constraints.txt"
printf '%s\n' "$TORCH" >>"$VENV/constraints.txt"
pip_install 'neurosweep and what it needs' -e '.[dev]' -c "$VENV/constraints.txt"

# Remembered for the next call, unless that says otherwise; _WAS tells the Makefile that it does.
cat >"$VENV/choice.mk" <<END
TORCH ?= $TORCH
TORCH_INDEX ?= $TORCH_INDEX
TORCH_WAS := $TORCH
TORCH_INDEX_WAS := $TORCH_INDEX
END
touch "$VENV/.installed"
