#!/usr/bin/env bash
# Tests the page in Chromium on its software WebGPU adapter: builds it, trains a small model for it to open, and
# runs web/test/*.mjs. Installs what is missing where it may (root on Debian or Ubuntu).
set -euo pipefail
cd "$(dirname "$0")/.."
missing=()
[ -x "${CHROMIUM:-/usr/bin/chromium}" ] || missing+=(chromium)
command -v node >/dev/null || missing+=(nodejs)
command -v npm >/dev/null || missing+=(npm)
if [ ! -d "$(rustc --print sysroot)/lib/rustlib/wasm32-unknown-unknown" ]; then
    [ -x /usr/bin/rustc ] || missing+=(rustc-web)
    [ -d /usr/lib/rustlib/src ] || missing+=(rust-web-src)
fi
if [ ${#missing[@]} -gt 0 ]; then
    if ! command -v apt-get >/dev/null || [ "$(id -u)" != 0 ]; then
        echo "missing: ${missing[*]}" >&2
        exit 1
    fi
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi
[ -d web/node_modules/axe-core ] ||
    npm install --prefix web --no-save --no-package-lock --no-audit --no-fund playwright-core@1 axe-core@4
bash web/build.sh
cargo build --release
export LENET="$PWD/target/release/lenet"
run=$(mktemp -d)
trap 'rm -rf "$run"' EXIT
"$LENET" train --device cpu --steps 600 --log json --out "$run/model" >/dev/null 2>&1
MODEL="$run/model/model.safetensors" timeout 1500 node --test --test-reporter=spec web/test/page.mjs
timeout 900 node --test --test-reporter=spec web/test/devices.mjs
