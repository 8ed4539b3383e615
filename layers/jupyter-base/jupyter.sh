#!/bin/bash
# Jupyter Lab from PyPI in a venv at /opt/conda, owned by the user who runs it.
set -euo pipefail
umask 002
export HOME=/tmp

python3 -m venv "$CONDA_DIR"
# shellcheck disable=SC2086 # a list of words
"$CONDA_DIR/bin/pip" install --prefer-binary --no-warn-script-location $PACKAGES
