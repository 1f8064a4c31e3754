#!/usr/bin/env bash
# Installs Mesa's software Vulkan on a Debian or Ubuntu machine that has no Vulkan driver, so that the GPU tests
# have an adapter to run on. Does nothing where a driver is there, or where it may not install one.
set -eu
if ls /usr/share/vulkan/icd.d/*.json /etc/vulkan/icd.d/*.json >/dev/null 2>&1; then
    exit 0
fi
if ! command -v apt-get >/dev/null || [ "$(id -u)" != 0 ]; then
    echo "no Vulkan driver; on Debian or Ubuntu: apt-get install mesa-vulkan-drivers (the GPU tests will be skipped)" >&2
    exit 0
fi
# Debian 12 itself has Mesa 22.3, which is ten times slower at what compute shaders do most; its backports have 25.
sources=/etc/apt/sources.list.d/debian.sources
if grep -qs '^Suites:.*bookworm-updates' "$sources" && ! grep -qs bookworm-backports "$sources"; then
    cp "$sources" "$sources.before"
    sed -i '/^Suites:.*bookworm-updates/s/$/ bookworm-backports/' "$sources"
    # A mirror without backports must not keep the stock driver from being installed.
    apt-get update -qq || cp "$sources.before" "$sources"
    rm "$sources.before"
fi
apt-get update -qq
if grep -qs bookworm-backports "$sources"; then
    apt-get install -y -qq -t bookworm-backports mesa-vulkan-drivers libvulkan1
else
    apt-get install -y -qq mesa-vulkan-drivers libvulkan1
fi
