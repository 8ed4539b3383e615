#!/bin/bash
# apt-source.sh NAME ADDRESS SUITE COMPONENTS KEY-ADDRESS FINGERPRINT
#
# Adds an apt repository whose key is trusted for that repository alone, and only if it is the
# key that the recipe names. No architecture is written down: apt takes the machine's.
set -euo pipefail
name=$1 address=$2 suite=$3 components=$4 key_address=$5 fingerprint=$6

if ! command -v gpg >/dev/null || ! command -v curl >/dev/null; then
  apt-get update --error-on=any
  apt-get install --yes --no-install-recommends ca-certificates curl gpg
fi

key=$(mktemp)
curl --fail --silent --show-error --location --retry 3 --output "$key" "$key_address"
found=$(gpg --batch --homedir "$(mktemp --directory)" --show-keys --with-colons "$key" |
  awk -F: '$1 == "pub" { primary = 1 } $1 == "fpr" && primary { print $10; primary = 0 }')
if [ "$found" != "$fingerprint" ]; then
  echo "$key_address holds the key ${found:-of nobody}, not $fingerprint: not trusted" >&2
  exit 1
fi

install -D --mode=0644 "$key" "/etc/apt/keyrings/$name.asc"
{
  echo "Types: deb"
  echo "URIs: $address"
  echo "Suites: $suite"
  [ -z "$components" ] || echo "Components: $components"
  echo "Signed-By: /etc/apt/keyrings/$name.asc"
} >"/etc/apt/sources.list.d/$name.sources"
# The lists on hand do not know the new repository.
rm -rf /var/lib/apt/lists/*
