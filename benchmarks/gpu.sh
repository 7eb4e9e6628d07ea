#!/usr/bin/env bash
# What the project does on a GPU, measured within so many minutes: benchmarks/gpu.sh [minutes]; see gpu.py beside this.
set -euo pipefail
exec "${PYTHON:-python3}" "$(dirname "$0")/gpu.py" "$@"
