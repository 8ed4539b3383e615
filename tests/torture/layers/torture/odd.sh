#!/bin/bash
# Every kind of file that a layer can hold.
set -euo pipefail
cd /srv/torture
mkdir odd; cd odd
mknod null c 1 3; mknod disk b 8 1; mkfifo fifo
chmod 0620 null; chown 5:6 null disk fifo
test -c null; test -b disk; test -p fifo
test "$(stat -c '%t:%T %u:%g %a' null)" = '1:3 5:6 620'
cp -a null null-copy
tar -cf - null disk | tar -xf - --one-top-level=untarred
test -b untarred/disk
python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("socket")' 2>/dev/null ||
    perl -MSocket -e 'socket(my $s, PF_UNIX, SOCK_STREAM, 0); bind($s, sockaddr_un("socket")) or die $!'
cp /bin/true capable; chown 7:8 capable; setcap cap_net_bind_service,cap_chown=ep capable
getcap capable | grep -q cap_chown
cp /bin/true lost; setcap cap_chown=ep lost; chown 7:8 lost; test -z "$(getcap lost)"
cp /bin/true setuid; chown 9:9 setuid; chmod 6755 setuid
cp /bin/true unset; chmod 6755 unset; chown 9:9 unset; test "$(stat -c %a unset)" = 755
ln /etc/debian_version to-parent
ln /bin/true to-program; ln capable within; ln -s nowhere dangling; chown -h 11:12 dangling
truncate -s 5M sparse; echo end >>sparse
mkdir setgid; chown 13:14 setgid; chmod 2775 setgid; mkdir setgid/sub; : >setgid/sub/file
test "$(stat -c %g:%a setgid/sub)" = 14:2755; test "$(stat -c %g setgid/sub/file)" = 14
long=$(printf 'n%.0s' {1..250}); mkdir -p "$long/$long"; : >"$long/$long/deep"; chown 15:16 "$long/$long/deep"
: >$'not\xff\xfeutf-8'; chown 17:18 $'not\xff\xfeutf-8'; : >$'new\nline'
: >closed; chown 19:20 closed; chmod 0 closed; mkdir shut; : >shut/in; chown -R 21:22 shut; chmod 0 shut
touch -d @123456789.5 old; touch -h -d @123456789 dangling
# Touched and put back: not in the layer.
chown 1:1 /etc/issue; chown 0:0 /etc/issue
chmod 600 /etc/profile; chmod 644 /etc/profile
cat /etc/bash.bashrc >/tmp/b; cat /tmp/b >/etc/bash.bashrc; touch -r /etc/profile /tmp/b
chgrp shadow /etc/environment
mv /etc/skel/.profile /etc/skel/.profile-moved
mv /etc/sudoers.d /etc/sudoers.moved; cp -a /etc/sudoers.moved /etc/sudoers.d; rm -r /etc/sudoers.moved
rm -r /usr/share/bug; mkdir /usr/share/bug; chown 23:24 /usr/share/bug
rm /etc/issue.net; ln -s issue /etc/issue.net
