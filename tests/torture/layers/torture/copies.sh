#!/bin/bash
# What copies and archives files must find and keep their owners.
set -euo pipefail
listing() { (cd "$1" && find . -printf '%P %u:%g %m %y %s %l\n' | sed 's/ d \([0-9]*\) / d - /; s/\( d \)[0-9]*/\1/' | LC_ALL=C sort); }
mkdir -p /srv/torture/copies
for tree in /etc /var/lib/dpkg /var/spool; do
    name=$(basename $tree)
    cp -a $tree /srv/torture/copies/cp-$name
    cmp <(listing $tree) <(listing /srv/torture/copies/cp-$name)
    mkdir /srv/torture/copies/tar-$name
    tar -C $tree --xattrs --xattrs-include='*' -cf - . | tar -C /srv/torture/copies/tar-$name --xattrs --xattrs-include='*' -xpf -
    cmp <(listing $tree) <(listing /srv/torture/copies/tar-$name)
done
cp -a /usr/bin/ping /usr/bin/sudo /usr/bin/crontab /usr/sbin/postdrop /srv/torture/copies/
getcap /srv/torture/copies/ping | grep -q cap_net_raw
test "$(stat -c %a:%G /srv/torture/copies/postdrop)" = 2555:postdrop
rm -rf /srv/torture/copies/tar-dpkg /srv/torture/copies/cp-dpkg
