#!/bin/bash
# Entry point: runs the command as the notebook user, with what the hub asked for.
#
# As an ordinary user (the default, uid 1000) it only runs the command. Started as root it
# first gives the user the uid and gid in NB_UID and NB_GID and, with GRANT_SUDO=yes, sudo.
set -euo pipefail

[ $# -gt 0 ] || set -- bash

if [ "$(id -u)" -ne 0 ]; then
  exec "$@"
fi

if [ "$(id -u "$NB_USER")" != "$NB_UID" ] || [ "$(id -g "$NB_USER")" != "$NB_GID" ]; then
  getent group "$NB_GID" >/dev/null || groupadd --gid "$NB_GID" "${NB_GROUP:-$NB_USER}"
  usermod --uid "$NB_UID" --gid "$NB_GID" "$NB_USER"
fi
if [ "${CHOWN_HOME:-}" = yes ] || [ "${CHOWN_HOME:-}" = 1 ]; then
  chown "$NB_UID:$NB_GID" "/home/$NB_USER"
fi
if [ "${GRANT_SUDO:-}" = yes ] || [ "${GRANT_SUDO:-}" = 1 ]; then
  echo "$NB_USER ALL=(ALL) NOPASSWD:ALL" >/etc/sudoers.d/notebook
fi
export HOME="/home/$NB_USER"
exec setpriv --reuid "$NB_UID" --regid "$NB_GID" --init-groups "$@"
