#!/bin/bash
# Packages whose scripts make users, set-gid programs, capabilities, and folders of others.
set -euo pipefail
apt-get update --error-on=any
apt-get install --yes --no-install-recommends \
    openssh-server man-db dbus cron iputils-ping sudo postfix postgresql libcap2-bin
# Keys are made anew in each installation, and are nobody's business in an image.
rm -f /etc/ssh/ssh_host_* /etc/ssl/private/ssl-cert-snakeoil.key /etc/ssl/certs/ssl-cert-snakeoil.pem
find /etc/ssl/certs -xtype l -delete
# Berkeley's databases carry the number and the time of their file.
rm -f /etc/aliases.db
getcap /usr/bin/ping | grep -q 'cap_net_raw=ep'
test "$(stat -c %A:%U:%G /usr/bin/crontab)" = -rwxr-sr-x:root:crontab
test "$(stat -c %U:%G:%a /etc/shadow)" = root:shadow:640
test "$(stat -c %G:%a /usr/sbin/postdrop)" = postdrop:2555
