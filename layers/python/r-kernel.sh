#!/bin/bash
# R as a kernel of Jupyter, where both Jupyter and R's IRkernel are.
set -euo pipefail
umask 002
export HOME=/tmp

Rscript -e 'IRkernel::installspec(user = FALSE, prefix = Sys.getenv("CONDA_DIR"))'
jupyter kernelspec list
