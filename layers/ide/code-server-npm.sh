#!/bin/bash
# code-server from npm, run by a Node from PyPI.
set -euo pipefail
echo todo
