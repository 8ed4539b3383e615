#!/bin/sh
# Stands before apt's method for sqv while apt is given what was recorded. sqv takes a signature for
# as good as its key was on that day, but the policy says of algorithms from which day on they are
# none any more: here it is apt's policy without these days.
for policy in "$APT_SEQUOIA_CRYPTO_POLICY" \
    /etc/crypto-policies/back-ends/apt-sequoia.config \
    /var/lib/crypto-config/profiles/current/apt-sequoia.config \
    "$SEQUOIA_CRYPTO_POLICY" \
    /etc/crypto-policies/back-ends/sequoia.config \
    /var/lib/crypto-config/profiles/current/sequoia.config \
    /usr/share/apt/default-sequoia.config; do
    [ -f "$policy" ] && break
done
# The method reads it as another user, and is killed when it is no longer needed.
umask 022
if sed -E 's/= *[0-9]{4}-[0-9]{2}-[0-9]{2}/= "always"/' "$policy" >/run/sequoia.$$ &&
    mv /run/sequoia.$$ /run/sequoia.config; then
    export APT_SEQUOIA_CRYPTO_POLICY=/run/sequoia.config
fi 2>/dev/null
exec /usr/lib/apt/methods/sqv
