#!/bin/bash
# RStudio Server for a container: no login of its own, advisory locks for shared homes.
set -euo pipefail

apt-get update --error-on=any
apt-get install --yes --no-install-recommends \
  gdebi-core libclang-dev libssl-dev lsb-release psmisc pwgen /tmp/rstudio-server.deb

echo "rsession-which-r=$(command -v R)" >>/etc/rstudio/rserver.conf
echo "lock-type=advisory" >/etc/rstudio/file-locks
# rserver --config-file with this one trusts whoever reaches it: the hub's proxy did the login.
{ cat /etc/rstudio/rserver.conf; echo "auth-none=1"; } >/etc/rstudio/disable_auth_rserver.conf

# The package makes keys when it is configured; a key that is in an image is everyone's.
rm -f /var/lib/rstudio-server/secure-cookie-key /var/lib/rstudio-server/session-rpc-key
rm -rf /var/lib/rstudio-server/rstudio-os.sqlite* /var/run/rstudio-server
