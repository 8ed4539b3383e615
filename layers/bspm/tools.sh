#!/bin/bash
# What bspm and install2.r stand on, and libraries that the group staff may write to.
set -euo pipefail

apt-get update --error-on=any
# shellcheck disable=SC2086 # a list of words
apt-get install --yes --no-install-recommends $DEBS

for library in /usr/lib/R/site-library /usr/local/lib/R/site-library; do
  install --directory --owner=root --group=staff --mode=2775 "$library"
done
if [ -n "${NB_USER:-}" ]; then
  usermod --append --groups staff "$NB_USER"
fi

for script in install.r install2.r installGithub.r; do
  ln -sf "/usr/lib/R/site-library/littler/examples/$script" "/usr/local/bin/$script"
done
