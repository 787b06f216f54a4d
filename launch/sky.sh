#!/usr/bin/env bash
# Runs on rented GPUs or TPUs of any cloud, as a managed job of SkyPilot: launch/sky.yaml says how.
#
# SkyPilot finds the machines, and others when they are preempted; the run then resumes from its
# newest checkpoint.
set -euo pipefail
script=sky.sh
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=launch/common.sh
source "$root/launch/common.sh"

usage() {
  cat <<'TEXT'
Usage: launch/sky.sh --name NAME --accelerators KIND:NUMBER --config FILE[:ARGUMENT]
                     --workdir DIRECTORY [options] [-- FLAG...]

  --name NAME               what to call the job
  --accelerators KIND:NUM   of each machine, for example H100:8 or tpu-v5litepod-8:1
  --num-nodes NUMBER        machines with GPUs (default: 1)
  --infra WHERE             for example gcp/us-central1 (default: wherever it is cheapest)
  --on-demand               no Spot machines
  --config FILE[:ARGUMENT]  the experiment, a path from the repository's root
  --workdir DIRECTORY       where to write and to resume: gs://BUCKET/FOLDER
  --dry-run                 print the command and run nothing; needs no sky
  --help                    print this text

Whatever follows -- goes to avit_jax.main unchanged.
TEXT
}

name='' accelerators='' num_nodes=1 infra='' on_demand=false config='' workdir=''
options=(name accelerators num-nodes infra on-demand config workdir)
parse_options "$@"
need name 'a name for the job'
need accelerators 'what each machine has, such as H100:8'
need_config_of_repository "$root"
need workdir 'gs://BUCKET/FOLDER'
[[ $workdir == *://* ]] ||
  fail "--workdir \"$workdir\" goes with the machine when that is preempted; write gs://BUCKET/FOLDER"
need_number num-nodes 'a whole number'

extras=gpu,gcs
[[ $accelerators != tpu-* ]] || extras=tpu,gcs
compose_command python
printf -v words '%q ' "${command[@]:1}"
launch=(sky jobs launch --yes "--name=$name" "--gpus=$accelerators" "--num-nodes=$num_nodes")
[[ -z $infra ]] || launch+=("--infra=$infra")
if $on_demand; then launch+=(--no-use-spot); fi
launch+=("--env=EXTRAS=$extras" "--env=ARGUMENTS=${words% }" "$root/launch/sky.yaml")

if $dry_run; then
  show "${launch[@]}"
  exit 0
fi
[[ -n $(type -P sky) ]] || fail "there is no sky command; pip install skypilot into an environment of its own, or add --dry-run"
check_here python3
cd "$root"
exec "${launch[@]}"
