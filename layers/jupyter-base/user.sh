#!/bin/bash
# The user, the folders and the Debian packages that the Docker Stacks' base image has.
set -euo pipefail

apt-get update --error-on=any
# shellcheck disable=SC2086 # a list of words
apt-get install --yes --no-install-recommends $DEBS

useradd --no-log-init --create-home --shell /bin/bash --uid "$NB_UID" --gid "$NB_GID" "$NB_USER"
# The home folder is covered by a volume at run time: it stays empty.
find "/home/$NB_USER" -mindepth 1 -delete
install --directory --owner="$NB_UID" --group="$NB_GID" --mode=2775 "$CONDA_DIR"

# sudo for the hub's GRANT_SUDO alone; its PATH has to find conda's programs.
sed -i "s|^Defaults\s*secure_path=\"|&$CONDA_DIR/bin:|" /etc/sudoers
