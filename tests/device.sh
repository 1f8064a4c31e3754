#!/usr/bin/env bash
# What is to be run on a machine with a real GPU, where there is no Rust: checks, measures and trains with a program that
# was built elsewhere, and compares with PyTorch where there is one. About eight minutes at most.
#
#     bash tests/device.sh PROGRAM OUT
#
# Everything goes into the folder OUT; OUT/summary.txt says what succeeded. The program is built by `cargo build
# --release`, and may be stripped. QUICK=1 shortens everything (for a software adapter), DEVICE is `--device` (gpu).
set -uo pipefail
[ $# -eq 2 ] || { echo "usage: bash tests/device.sh PROGRAM OUT" >&2; exit 2; }
program=$(realpath -e "$1") || exit 2
here=$(dirname "$(realpath -e "$0")")
mkdir -p "$2" || exit 2
out=$(realpath -e "$2")
quick=${QUICK:-0}
device=${DEVICE:-gpu}
summary=$out/summary.txt
: >"$summary"
failures=0
# Seconds in which all of it has to be done.
whole=${WHOLE:-480}

say() { echo "$*" | tee -a "$summary"; }

# Runs a command in at most so many seconds; stdout goes to OUT/FILE, the talk to OUT/FILE.log.
step() {
    local limit=$1 file=$2 start=$SECONDS code=0 left=$((whole - SECONDS))
    shift 2
    [ "$limit" -le "$left" ] || limit=$left
    [ "$limit" -gt 0 ] || { say "$file: left out, the $whole s are over"; failures=$((failures + 1)); return 1; }
    timeout --kill-after=10 "$limit" "$@" >"$out/$file" 2>"$out/$file.log" </dev/null || code=$?
    local took=$((SECONDS - start)) verdict=ok
    if [ "$code" -ne 0 ]; then
        verdict="FAILED, exit code $code"
        [ "$code" -ne 124 ] && [ "$code" -ne 137 ] || verdict="FAILED, more than $limit s"
        failures=$((failures + 1))
    fi
    say "$(printf '%-24s %4d s  %s' "$file" "$took" "$verdict")"
    [ "$code" -eq 0 ] || tail -n 3 "$out/$file.log" | sed 's/^/    /' | tee -a "$summary"
    return "$code"
}

if [ "$quick" = 1 ]; then
    flags=(--quick) seconds=0.1 batches=64 seeds=2 steps=(--steps 60) each=0.1
else
    flags=() seconds=0.5 batches=64,256,1024 seeds=10 steps=() each=1
fi

say "lenet on a device: $(date -u '+%F %T') UTC, $("$program" --version)"
step 60 info.json "$program" info --json
! command -v nvidia-smi >/dev/null || step 20 nvidia-smi.txt nvidia-smi
step 240 check.txt "$program" check --device "$device" "${flags[@]}" --report "$out/check.json"
step 120 bench.json "$program" bench --json --device "$device" --batch "$batches" --seconds "$seconds"

# The fast settings, one process a seed, so that each begins as a user's would.
for seed in $(seq 0 $((seeds - 1))); do
    rm -rf "$out/train-$seed"
    step 40 "train-$seed.jsonl" "$program" train --preset fast --device "$device" --seed "$seed" --log json \
        --out "$out/train-$seed" "${steps[@]}" || break
done
say "the last evaluation of each seed:"
for file in "$out"/train-*.jsonl; do
    line=$(tail -n 1 "$file" | grep -o '"\(accuracy\|seconds\)":[0-9.]*\|"reached":\[[^]]*\]' | tr '\n' ' ')
    say "    $(basename "$file" .jsonl)  $line"
done

if command -v python3 >/dev/null; then
    SECONDS_EACH=$each step 150 pytorch.jsonl python3 "$here/device_pytorch.py" ${batches//,/ }
    say "PyTorch:"
    sed 's/^/    /' "$out/pytorch.jsonl" | tee -a "$summary"
else
    say "PyTorch: skipped, there is no python3"
fi
say "the check:"
sed 's/^/    /' "$out/check.txt" | tee -a "$summary"
say "$failures commands failed; everything is in $out"
[ "$failures" -eq 0 ]
