#!/usr/bin/env bash
# The products by cooperative matrices, on a software GPU that has them: lavapipe since Mesa 26.1, which Debian 12 lacks. So Debian 13 with that driver goes into a
# folder of its own (root's right to chroot is needed, and the Debian archive), and the tests run there.
set -euo pipefail
cd "$(dirname "$0")/.."
root=${CARGO_TARGET_DIR:-target}/lavapipe

if [ ! -e "$root/ready" ]; then
    command -v debootstrap >/dev/null || { apt-get update -qq && apt-get install -y -qq --no-install-recommends debootstrap; }
    rm -rf "$root"
    mkdir -p "$root"
    archive=http://deb.debian.org/debian
    debootstrap --variant=minbase trixie "$root" "$archive" >"$root.log" || { tail -20 "$root.log" >&2; exit 1; }
    echo "deb $archive trixie-backports main" >"$root/etc/apt/sources.list.d/backports.list"
    chroot "$root" apt-get update -qq
    chroot "$root" apt-get install -y -qq --no-install-recommends -t trixie-backports mesa-vulkan-drivers libvulkan1 >"$root.log" 2>&1 ||
        { tail -20 "$root.log" >&2; exit 1; }
    touch "$root/ready"
fi

# Runs the tests of a binary whose names hold the word.
run() {
    local built
    built=$(cargo test --locked --no-run --message-format=json --test "$1" | sed -n "s/.*\"executable\":\"\([^\"]*\/deps\/$1-[^\"]*\)\".*/\1/p")
    cp "$built" "$root/$1"
    chroot "$root" env VK_DRIVER_FILES=/usr/share/vulkan/icd.d/lvp_icd.json XDG_RUNTIME_DIR=/tmp MAPPA_REQUIRE_GPU=1 MAPPA_REQUIRE_MATRICES=1 "/$1" "$2"
}
run conformance cooperative_matrices
run faults cooperative_matrices
