#!/usr/bin/env bash
# Asynchronous meta-training under Slurm.
#
#   sbatch --test-only training/distributed/deploy/slurm.sh  # a dry run
#   sbatch training/distributed/deploy/slurm.sh --train_dir=/shared/runs/paper
#
# The first task is the chief, the second the parameter server, all others are
# workers. For one worker a GPU add --gpus-per-task=1. Flags given to this script
# go to the program. The environment must have the package: edit the next lines.
#SBATCH --job-name=hrnn-opt
#SBATCH --ntasks=10
#SBATCH --cpus-per-task=2
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120
set -uo pipefail
# module load python; source /shared/venv/bin/activate

# Servers never end by themselves: --wait ends them after the chief. Each task
# starts again what dies in it.
task='
while true; do
  python -m training.meta_train --strategy=parameter_server "$@"
  status=$?
  # The chief is done, or has an error; after 75, or a kill, a start helps.
  if [ "$SLURM_PROCID" = 0 ] && [ "$status" != 75 ] && [ "$status" -lt 128 ]
  then exit "$status"; fi
  sleep 1
done'
srun --wait=20 --kill-on-bad-exit=1 bash -c "$task" hrnn-opt --cores=0 "$@"
