#!/bin/bash
# R as a kernel of Jupyter, where both Jupyter and R's IRkernel are.
set -euo pipefail
umask 002
# jupyter makes a folder of its own there.
export HOME=/tmp XDG_DATA_HOME=/tmp

Rscript -e 'IRkernel::installspec(user = FALSE, prefix = Sys.getenv("CONDA_DIR"))'
jupyter kernelspec list
