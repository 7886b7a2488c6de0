#!/usr/bin/env bash
# All tests that a change must pass, GPU tests on a real or a software adapter. `--full` adds the long sweeps and all seeded faults.
set -euo pipefail
cd "$(dirname "$0")/.."

case "${1:-}" in
    "") echo "test.sh: left out: long random sweeps and half of the seeded faults (--full runs them)" ;;
    --full) export MAPPA_FULL=1 ;;
    *) echo "usage: scripts/test.sh [--full]" >&2; exit 2 ;;
esac

# Lavapipe complains on stderr without one.
if [ -z "${XDG_RUNTIME_DIR:-}" ]; then
    XDG_RUNTIME_DIR=$(mktemp -d)
    export XDG_RUNTIME_DIR
    trap 'rm -rf "$XDG_RUNTIME_DIR"' EXIT
fi

# Whether the Vulkan loader has a driver to load. Metal needs none.
has_driver() {
    [ "$(uname)" = Darwin ] || [ -n "${VK_DRIVER_FILES:-}${VK_ICD_FILENAMES:-}" ] ||
        compgen -G "/usr/share/vulkan/icd.d/*.json" >/dev/null || compgen -G "/etc/vulkan/icd.d/*.json" >/dev/null
}

install_lavapipe() {
    local sudo=()
    [ "$(id -u)" = 0 ] || sudo=(sudo -n)
    command -v apt-get >/dev/null &&
        ${sudo[@]+"${sudo[@]}"} apt-get update -qq &&
        ${sudo[@]+"${sudo[@]}"} apt-get install -y -qq --no-install-recommends mesa-vulkan-drivers
}

if ! has_driver; then
    echo "test.sh: no Vulkan driver found; installing lavapipe (mesa-vulkan-drivers), a software GPU"
    install_lavapipe || echo "test.sh: lavapipe could not be installed; install a Vulkan driver yourself, the GPU tests fail without one" >&2
fi

# A missing adapter is a failure, not a skipped test.
export MAPPA_REQUIRE_GPU=1
if [ ! -d "${MAPPA_SHARED:-../shared}/goldens" ]; then
    echo "test.sh: left out: the golden cases and MNIST, since there is no reference data at ${MAPPA_SHARED:-../shared}"
fi

cargo test --locked
