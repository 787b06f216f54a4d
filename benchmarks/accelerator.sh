#!/usr/bin/env bash
# Measures this package beside PyTorch on whatever machine it is started on, and writes one table.
#
#     benchmarks/accelerator.sh                            # everything, into runs/accelerator
#     benchmarks/accelerator.sh --parts small,training     # some of small, tiny, training
#     benchmarks/accelerator.sh --into docs/performance/accelerators.md
#     benchmarks/accelerator.sh --smoke                    # tiny sizes: does it run at all?
#
# `--help` has all options. PYTHON names an interpreter that has avit_jax installed.
set -euo pipefail

# JAX takes memory as it needs it, and never all of it, so that PyTorch has some, too.
export XLA_PYTHON_CLIENT_PREALLOCATE=${XLA_PYTHON_CLIENT_PREALLOCATE:-false}
export XLA_PYTHON_CLIENT_MEM_FRACTION=${XLA_PYTHON_CLIENT_MEM_FRACTION:-0.6}
# One GPU for both: PyTorch's peers do not share their batches.
export CUDA_VISIBLE_DEVICES=${CUDA_VISIBLE_DEVICES:-0}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$here/.."
exec "${PYTHON:-python}" benchmarks/accelerator.py "$@"
