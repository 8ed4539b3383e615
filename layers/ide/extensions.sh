#!/bin/bash
# VS Code's extensions from Open VSX, below $XDG_DATA_HOME, where a mounted home can't hide them.
set -euo pipefail
umask 002
export HOME=/tmp

data="$XDG_DATA_HOME/code-server"
wanted=()
for extension in $EXTENSIONS; do
  wanted+=(--install-extension "$extension")
done
# One call for all: calls one after another have been seen to drop earlier entries.
code-server --user-data-dir "$data" --extensions-dir "$data/extensions" "${wanted[@]}"

installed=$(code-server --user-data-dir "$data" --extensions-dir "$data/extensions" --list-extensions)
for extension in $EXTENSIONS; do
  if ! grep -qixF "${extension%@*}" <<<"$installed"; then
    echo "$extension is not installed" >&2
    exit 1
  fi
done

# What differs from run to run: the time of the installation, logs, caches, the machine's id.
find "$data/extensions" -maxdepth 2 \( -name extensions.json -o -name package.json \) -exec \
  sed -i -E "s/(\"installedTimestamp\": ?)[0-9]+/\1${SOURCE_DATE_EPOCH}000/g" {} +
rm -rf "$data"/{CachedExtensionVSIXs,CachedProfilesData,logs,machineid,coder-logs,User/globalStorage}
