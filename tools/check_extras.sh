#!/usr/bin/env bash
# Installs extras of pyproject.toml into fresh environments, one after the other, and tries each: `brainhive doctor`,
# then one small step of what the extra is for. Prints a line for each; the log of what failed; exits 1 if any did.
#
#     tools/check_extras.sh                 every extra alone, then all together (10 GB of disk, two minutes each)
#     tools/check_extras.sh parquet all     those named; `none` is the tool without extras, `wheel` the same as released:
#                                           not of the checkout, but of the wheel that is built of it
#     tools/check_extras.sh lowest          the lowest versions that pyproject.toml allows, with all tests (30 minutes)
set -uo pipefail
cd "$(dirname "$0")/.."

extras=$(sed -n '/^\[project.optional-dependencies\]/,/^\[project.scripts\]/s/^\([a-z0-9-]*\) = .*/\1/p' pyproject.toml)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export BRAINHIVE_HOME="$work/home" OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1

demo() {
    brainhive embed --recipe demo && brainhive train-align --recipe demo subjects=1 train.epochs=1 "$@"
}

tests() {
    pip install -q pytest && python -m pytest -q -rs "$@"
}

lowest() {  # recorded numbers, messages and these tests hold for the newest libraries alone: random weights differ
    newest="share_a_pass_and_prefer_a_copy or encoded_by_the_mean_of_their_tokens or damaged_cut_or_missing_is_named"
    python -m pytest -q -n 2 --dist loadfile --ignore-glob '*/test_recorded_*' --ignore tests/messages -k "not ($newest)"
}

step() {
    case $1 in
        none)
            tiny=$(python -c "from brainhive_cli.models.encoders import open_clip as e; print(e.TINY.model_dump())")
            python -c "import mne, mne_bids, nibabel, sklearn, transformers"
            demo && brainhive embed --recipe demo "encoders=[$tiny]" ;;
        wheel) cd "$work" && demo ;;
        lowest) lowest ;;
        braindecode)
            demo 'backbone={kind: braindecode, model: EEGNeX}' && tests tests/models/backbones/test_braindecode.py ;;
        parquet) demo && brainhive export-embeddings "$BRAINHIVE_HOME/embeddings/demo" --to "$BRAINHIVE_HOME/out" ;;
        maps) tests tests/reports/figures/test_brain_maps.py ;;
        mosaic) tests tests/data/published/test_mosaic.py ;;
        metrics) tests tests/measurement/metrics/test_perceptual.py tests/measurement/metrics/perceptual/test_distribution.py ;;
        captions) tests tests/measurement/metrics/test_tasks.py ;;
        video) tests tests/measurement/metrics/test_video.py ;;
        live) tests tests/data/streams tests/reports/pages/test_live_page.py ;;
        test) python -m pytest -q tests/models/backbones tests/test_architecture.py ;;
        dev) ruff check . && mypy brainhive_cli/core/base/errors.py && python -m build --wheel --outdir "$work/wheel" . ;;
        docs) mkdocs build -q -d "$work/site" ;;
        all) for extra in $extras; do step "$extra" || return; done ;;
        *) echo "no step is known for the extra $1"; return 1 ;;
    esac
}

try() {  # in a shell of its own, so that the environment is left again
    python3 -m venv "$work/env" && source "$work/env/bin/activate" && began=$SECONDS
    case $1 in
        none) wanted=(-e .) ;;
        wheel) pip wheel -q --no-deps -w "$work" . >"$work/log" 2>&1; wanted=("$work"/brainhive-*.whl) ;;
        *) wanted=(-e ".[${1/#all/$(echo $extras | tr ' ' ,)}]") ;;
    esac
    if [ "$1" = lowest ]; then
        pip install -q uv && installer=(uv pip install -q --resolution lowest-direct) wanted=(-e ".[test]")
    else
        installer=(pip install -q)
    fi
    "${installer[@]}" "${wanted[@]}" >>"$work/log" 2>&1 && installed=done || installed=FAILED
    took=$((SECONDS - began)) size=$(du -sm "$work/env" | cut -f1)
    torch=$(python -c "from importlib.metadata import version; print(version('torch'))" 2>/dev/null || echo -)
    brainhive doctor >>"$work/log" 2>&1 && healthy=done || healthy=FAILED
    step "$1" >>"$work/log" 2>&1 && stepped=done || stepped=FAILED
    row "$1" "$installed" "$took" "$size" "$torch" "$healthy" "$stepped"
    [ "$installed$healthy$stepped" = donedonedone ] || { tail -n 30 "$work/log"; return 1; }
}

row() { printf '%-12s %-9s %5s %7s  %-12s %-8s %s\n' "$@"; }

[ $# -gt 0 ] || set -- none wheel $extras all
row extra installed s MB torch doctor step
failed=0
for extra in "$@"; do
    (try "$extra") || failed=1
    rm -rf "$work"/*
done
exit $failed
