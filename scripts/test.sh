#!/usr/bin/env bash
# All tests that a change must pass, GPU tests on a real or software adapter. `--full` adds the long sweeps.
set -euo pipefail
cd "$(dirname "$0")/.."

[ "${1:-}" = "--full" ] && export MAPPA_FULL=1

# Lavapipe complains on stderr without one.
if [ -z "${XDG_RUNTIME_DIR:-}" ]; then
    XDG_RUNTIME_DIR=$(mktemp -d)
    export XDG_RUNTIME_DIR
fi

has_driver() {
    [ "$(uname)" = Darwin ] || ls /usr/share/vulkan/icd.d/*.json /etc/vulkan/icd.d/*.json "${VK_DRIVER_FILES:-/nonexistent}" >/dev/null 2>&1
}

if ! has_driver; then
    echo "test.sh: no Vulkan driver found; installing lavapipe (mesa-vulkan-drivers), a software GPU"
    sudo=""
    [ "$(id -u)" = 0 ] || sudo="sudo -n"
    if ! command -v apt-get >/dev/null || ! { $sudo apt-get update -qq && $sudo apt-get install -y -qq --no-install-recommends mesa-vulkan-drivers; }; then
        echo "test.sh: lavapipe could not be installed; install a Vulkan driver yourself, the GPU tests fail without one" >&2
    fi
fi

# A missing adapter is a failure, not a skipped test.
export MAPPA_REQUIRE_GPU=1
[ -d "${MAPPA_SHARED:-../shared}/goldens" ] || echo "test.sh: no reference data at ${MAPPA_SHARED:-../shared}: the golden cases and MNIST are left out"

cargo test --locked
