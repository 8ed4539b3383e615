#!/bin/bash
# Programs that call the kernel by themselves, as Go's do, and one of 32 bits.
set -euo pipefail
cd /srv/torture
for name in static go i386; do
    program=$OCIBUILD_RECIPE/programs/$name
    [ -x "$program" ] || continue
    mkdir "$name"
    "$program" "$name" 1234 5678
    test "$(stat -c %u:%g "$name"/chowned "$name"/link | sort -u)" = 1234:5678
done
