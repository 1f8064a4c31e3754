#!/usr/bin/env bash
# Installs what building and testing the page need and this machine lacks, where it may (root on Debian or Ubuntu).
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
