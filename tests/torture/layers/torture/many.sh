#!/bin/bash
# More files with owners than a process may hold open.
set -euo pipefail
mkdir -p /srv/many
cd /srv/many
FILES=$FILES perl -e '
    for my $i (0 .. $ENV{FILES} - 1) {
        my $d = int($i / 500);
        mkdir "d$d" if $i % 500 == 0;
        open my $f, ">", "d$d/f$i" or die; print $f $i % 7; close $f;
    }'
chown -R 4321:8765 .
chown -R 4321:8766 d0
find . -not -uid 4321 | wc -l | grep -qx 0
find d0 -not -gid 8766 | wc -l | grep -qx 0
for n in 1 2 3; do mv d0/f$n "d1/moved$n"; done
chown 0:0 d1/moved1
rm d0/f4; echo new >d0/f4
mkdir e; mv d0/f5 e/; rm -rf d2; mkdir d2
stat -c '%n %u:%g' d1/moved1 d1/moved2 d0/f4 e/f5 d2 >said
touch -d @1700000000 said
