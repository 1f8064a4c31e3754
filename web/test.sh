#!/usr/bin/env bash
# Tests the page in Chromium on its software WebGPU adapter: builds it, trains a small model for it to open, and
# runs web/test/*.mjs. Installs what is missing where it may (root on Debian or Ubuntu).
set -euo pipefail
cd "$(dirname "$0")/.."
bash web/needs.sh
bash web/build.sh
cargo build --release
export LENET="$PWD/target/release/lenet"
run=$(mktemp -d)
trap 'rm -rf "$run"' EXIT
"$LENET" train --device cpu --steps 600 --log json --out "$run/model" >/dev/null 2>&1
MODEL="$run/model/model.safetensors" timeout 1500 node --test --test-reporter=spec web/test/page.mjs
timeout 900 node --test --test-reporter=spec web/test/devices.mjs
