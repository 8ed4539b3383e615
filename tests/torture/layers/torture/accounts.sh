#!/bin/bash
# Users made and used: each way of becoming one must show the same, and leave the same files.
set -euo pipefail
groupadd --gid 2000 keepers
useradd --uid 2001 --gid keepers --create-home --shell /bin/bash keeper
useradd --uid 1000 --create-home --shell /bin/bash somebody
usermod --append --groups keepers,sudo somebody
echo 'somebody ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/somebody
chmod 0440 /etc/sudoers.d/somebody
install -d -o keeper -g keepers -m 2775 /srv/torture/shared
install -o somebody -g keepers -m 0640 /etc/hostname /srv/torture/installed 2>/dev/null ||
    install -o somebody -g keepers -m 0640 /etc/debian_version /srv/torture/installed
install -d -o 1000 -g 1000 /srv/torture/of-1000

(cd /srv/torture
    su keeper -c 'umask 022; id; touch shared/by-su; mkdir shared/folder'
    sudo -u keeper sh -c 'id -un; touch /srv/torture/shared/by-sudo'
    setpriv --reuid 2001 --regid 2000 --clear-groups sh -c 'id; : >shared/by-setpriv'
    runuser -u somebody -- sh -c 'id; : >shared/by-runuser; ln -s by-runuser shared/link'
    chroot --userspec=somebody:keepers / sh -c ': >/srv/torture/shared/by-chroot'
    su somebody -c 'sudo -n touch /srv/torture/shared/by-root'
) >/srv/torture/said 2>/srv/torture/err || { cat /srv/torture/err; exit 1; }
rm /srv/torture/err
# A user may write where the folder lets him.
stat -c '%n %u:%g %a' /srv/torture/shared/* >>/srv/torture/said
echo 'keeper:secret' | chpasswd --crypt-method NONE 2>/dev/null || true
passwd --lock keeper >/dev/null
su somebody -c 'sudo -n passwd --status keeper | cut -d" " -f1,2' >>/srv/torture/said
touch -d @1700000000 /srv/torture/said
