#!/usr/bin/env bash
# Runs on TPU slices of a GKE cluster, through xpk, which makes a JobSet of it and uploads an image.
#
# The cluster is made before, with `xpk cluster create`. Kubernetes starts the workload again where a
# worker was preempted, told to stop or crashed, and it resumes from its newest checkpoint; a refused
# config (status 2) is not tried again.
set -euo pipefail
script=gke_xpk.sh
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=launch/common.sh
source "$root/launch/common.sh"

usage() {
  cat <<'TEXT'
Usage: launch/gke_xpk.sh --cluster CLUSTER --workload NAME --tpu-type TYPE
                         --config FILE[:ARGUMENT] --workdir DIRECTORY [options] [-- FLAG...]

  --cluster CLUSTER         the cluster's name
  --workload NAME           what to call the workload: small letters, digits and dashes
  --tpu-type TYPE           for example v5litepod-256
  --num-slices NUMBER       slices of that type (default: 1)
  --zone ZONE               the cluster's (default: gcloud's own setting)
  --project PROJECT         the cluster's (default: gcloud's own setting)
  --config FILE[:ARGUMENT]  the experiment, a path from the repository's root
  --workdir DIRECTORY       where to write and to resume: gs://BUCKET/FOLDER
  --image IMAGE             a container image that has avit_jax and configs/ in its working
                            directory (default: Python's own, with this repository copied into it
                            and installed at each start)
  --priority PRIORITY       very-low, low, medium, high or very-high (default: medium)
  --max-restarts NUMBER     restarts after a preemption or a crash (default: 100)
  --grace SECONDS           how long a worker may take to save when it is told to stop (default: 300)
  --dry-run                 print the command and run nothing; needs no xpk
  --help                    print this text

Whatever follows -- goes to avit_jax.main unchanged.
TEXT
}

cluster='' workload='' tpu_type='' num_slices=1 zone='' project='' config='' workdir='' image=''
priority=medium max_restarts=100 grace=300
options=(cluster workload tpu-type num-slices zone project config workdir image priority
  max-restarts grace)
parse_options "$@"
need cluster 'the name that xpk cluster list shows'
need workload 'a name for it'
[[ $workload =~ ^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$ ]] ||
  fail "--workload was \"$workload\"; write at most 40 small letters, digits and dashes, a letter first"
need tpu-type 'the type of slice, such as v5litepod-256'
need_config_of_repository "$root"
need workdir 'gs://BUCKET/FOLDER'
[[ $workdir == gs://* ]] ||
  fail "--workdir \"$workdir\" goes with the container; write gs://BUCKET/FOLDER"
need_number num-slices 'a whole number'
need_number max-restarts 'a whole number'
need_number grace 'whole seconds'

compose_command python
printf -v in_container '%q ' "${command[@]}"
in_container="exec ${in_container% }"
if [[ -z $image ]]; then
  # xpk's own base image has a Python that is too old.
  from=(--base-docker-image=python:3.12 "--script-dir=$root")
  in_container="pip install --quiet -e '.[tpu,gcs]' && $in_container"
else
  from=("--docker-image=$image")
fi
create=(xpk workload create "--cluster=$cluster" "--workload=$workload" "--tpu-type=$tpu_type"
  "--num-slices=$num_slices" "${from[@]}" "--priority=$priority" "--max-restarts=$max_restarts"
  # A crash, and our own "saved, start me again"; by itself xpk goes on after 42 and 127 to 255.
  "--restart-on-exit-codes=1,$PREEMPTED" "--termination-grace-period-seconds=$grace")
[[ -z $zone ]] || create+=("--zone=$zone")
[[ -z $project ]] || create+=("--project=$project")
create+=("--command=$in_container")

if $dry_run; then
  show "${create[@]}"
  exit 0
fi
[[ -n $(type -P xpk) ]] || fail "there is no xpk command; pip install xpk into an environment of its own, or add --dry-run"
check_here python3
exec "${create[@]}"
