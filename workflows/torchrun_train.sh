#!/usr/bin/env bash
#SBATCH --job-name=mclip-train
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=16
#SBATCH --time=12:00:00
# mclip train by several processes that share every batch: on this machine, or on the nodes of a SLURM job.
#
#     PROCESSES=2 workflows/torchrun_train.sh store.zarr runs/amass --batch 160
#     sbatch workflows/torchrun_train.sh store.zarr runs/amass --batch 160
#
# The words behind it are those of `mclip train`. PROCESSES a node: as many as it has GPUs, or one. PORT: where the first
# node waits for the others. Store and run must be seen by every node; the same command again continues the run.
set -euo pipefail

gpus=$(nvidia-smi --list-gpus 2>/dev/null | wc -l || true)
processes=${PROCESSES:-$((gpus > 0 ? gpus : 1))}
train=(-m mclip.cli train "$@")

if [[ -z ${SLURM_JOB_NODELIST:-} ]]; then
    exec torchrun --standalone --nproc-per-node "$processes" "${train[@]}"
fi
nodes=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
exec srun torchrun --nnodes "$SLURM_NNODES" --nproc-per-node "$processes" --rdzv-backend c10d \
    --rdzv-id "$SLURM_JOB_ID" --rdzv-endpoint "${nodes%%$'\n'*}:${PORT:-29500}" "${train[@]}"
