#!/usr/bin/env bash
# The products by cooperative matrices, on a software GPU that has them: lavapipe since Mesa 26.1, which Debian 12 lacks. So Debian 13 with that driver goes into a
# folder of its own, as root and from the Debian archive, and the tests run there.
set -euo pipefail
cd "$(dirname "$0")/.."
root=${CARGO_TARGET_DIR:-target}/lavapipe
sudo=()
[ "$(id -u)" = 0 ] || sudo=(sudo -n)
as_root() { ${sudo[@]+"${sudo[@]}"} "$@"; }

# Shows the end of what a command printed, if it fails.
quietly() {
    "$@" >"$root.log" 2>&1 || { tail -20 "$root.log" >&2; echo "matrices.sh: failed: $*" >&2; exit 1; }
}

if [ ! -e "$root/ready" ]; then
    mkdir -p "$root"
    if ! command -v debootstrap >/dev/null; then
        quietly as_root apt-get update -qq
        quietly as_root apt-get install -y -qq --no-install-recommends debootstrap
    fi
    as_root rm -rf --one-file-system "$root"
    archive=http://deb.debian.org/debian
    quietly as_root debootstrap --variant=minbase trixie "$root" "$archive"
    echo "deb $archive trixie-backports main" | as_root tee "$root/etc/apt/sources.list.d/backports.list" >/dev/null
    quietly as_root chroot "$root" apt-get update -qq
    quietly as_root chroot "$root" apt-get install -y -qq --no-install-recommends -t trixie-backports mesa-vulkan-drivers libvulkan1
    as_root touch "$root/ready"
fi

# Runs one test of a binary. Its name must be whole: a filter that fits nothing would pass.
run() {
    local built
    built=$(cargo test --locked --no-run --message-format=json --test "$1" | sed -n "s/.*\"executable\":\"\([^\"]*\/deps\/$1-[^\"]*\)\".*/\1/p")
    as_root cp "$built" "$root/$1"
    as_root chroot "$root" env VK_DRIVER_FILES=/usr/share/vulkan/icd.d/lvp_icd.json XDG_RUNTIME_DIR=/tmp MAPPA_REQUIRE_GPU=1 MAPPA_REQUIRE_MATRICES=1 \
        "/$1" --exact "$2" | tee "$root.log"
    grep -q "^test result: ok. 1 passed" "$root.log" || { echo "matrices.sh: $1 has no test $2" >&2; exit 1; }
}
run conformance products_by_cooperative_matrices_agree_with_the_reference
run faults every_seeded_fault_of_cooperative_matrices_is_caught
