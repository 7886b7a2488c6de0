#!/bin/sh
# Draws docs/report.png and docs/report-dark.png: the report of a run on the digits, by headless Chromium.
set -eu
cd "$(dirname "$0")/.."
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cargo run --release --quiet -- train --device cpu --out "$folder/digits" 2>/dev/null
shot() {
    "${CHROMIUM:-chromium}" --headless --no-sandbox --disable-gpu --hide-scrollbars --user-data-dir="$folder/profile" --window-size=1000,1500 \
        "--blink-settings=preferredColorScheme=$1" --screenshot="$PWD/docs/$2" "file://$folder/digits/report.html" >/dev/null 2>&1
    echo "docs/$2"
}
shot 1 report.png
shot 0 report-dark.png
