#!/bin/bash
# Packages that lie beside the recipe: a guest has no network.
set -euo pipefail
mkdir -p /srv/torture
cp "$OCIBUILD_RECIPE"/debs/*.deb /tmp
apt-get install --yes --no-install-recommends /tmp/*.deb
getcap /usr/bin/ping | grep -q 'cap_net_raw=ep'
test "$(stat -c %A:%U:%G /usr/bin/crontab)" = -rwxr-sr-x:root:crontab
test "$(stat -c %U:%G:%a /etc/shadow)" = root:shadow:640
