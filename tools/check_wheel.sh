#!/usr/bin/env bash
# Installs the wheel of this checkout for each Python that is named, in a fresh environment without a path to the checkout,
# and runs tools/first_hour.py in an empty home: `brainhive demo`, `demo --real`, the README's ten lines and `api.fit`.
# Prints the seconds of each step; exits 1 if any failed. An environment takes 6 GB of disk, and is removed again. With uv
# on the path, environments share files.
#
#     tools/check_wheel.sh python3.11 python3.14
#     tools/check_wheel.sh --wheel dist/brainhive-VERSION-py3-none-any.whl python3.12     the file that will be uploaded
set -uo pipefail
wheel=
if [ "${1:-}" = --wheel ]; then wheel=$(realpath "$2") && shift 2; fi
[ $# -gt 0 ] || { sed -n '2,8p' "$0"; exit 2; }
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

[ -n "$wheel" ] || { "$1" -m pip wheel -q --no-deps -w "$work" . && wheel=$(echo "$work"/brainhive-*.whl); } || exit 1

try() {
    "$1" -m venv "$work/env" && mkdir -p "$work/try/home" || return
    cp README.md tools/first_hour.py tests/worlds/own_recordings.py "$work/try" || return
    local began=$SECONDS
    if command -v uv >/dev/null; then
        uv pip install -q --python "$work/env/bin/python" "$wheel" || return
    else
        "$work/env/bin/pip" install -q "$wheel" || return
    fi
    printf '%6d s          install %s\n' $((SECONDS - began)) "$(basename "$wheel")"
    cd "$work/try" && env -u PYTHONPATH -u BRAINHIVE_HOME -u VIRTUAL_ENV HOME="$work/try/home" \
        PATH="$work/env/bin:$PATH" python first_hour.py
}

failed=0
for python in "$@"; do
    (try "$python") || { echo "failed: $python"; failed=1; }
    rm -rf "$work/env" "$work/try"
done
exit $failed
