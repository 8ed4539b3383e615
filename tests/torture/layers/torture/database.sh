#!/bin/bash
# The cluster that postgresql's package made belongs to postgres, who also starts it. Its identifier
# is random, so the owners of its files go into the layer and the cluster doesn't.
set -euo pipefail
mkdir -p /srv/torture
cluster=(/var/lib/postgresql/*/main)
test -f "$cluster/PG_VERSION"
(cd /var/lib/postgresql && find . -printf '%u:%g %m %y %P\n' | sort) >/srv/torture/cluster
! grep -v '^postgres:postgres' /srv/torture/cluster
test "$(wc -l </srv/torture/cluster)" -gt 900
su postgres -c 'test "$(id -un)" = postgres && test -O /var/lib/postgresql'
version=$(basename "$(dirname "$cluster")")
pg_dropcluster "$version" main
rm -rf /var/log/postgresql/*
