#!/usr/bin/env bash
# Asks for a Cloud TPU slice as a queued resource, runs on it, and asks again when it is preempted.
#
# A Spot slice that is preempted is gone for good: its request ends as SUSPENDED or FAILED. This
# script then takes the request away and makes a new one, and the run resumes from its newest
# checkpoint. Everything that happens on the slice is tpu_vm.sh's work.
set -euo pipefail
script=tpu_queued.sh
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=launch/common.sh
source "$root/launch/common.sh"

usage() {
  cat <<'TEXT'
Usage: launch/tpu_queued.sh --name SLICE --zone ZONE --accelerator-type TYPE
                            --config FILE[:ARGUMENT] --workdir DIRECTORY [options] [-- FLAG...]

  --name SLICE              what to call the request and its slice
  --zone ZONE               where, for example us-west4-a
  --project PROJECT         of whom (default: gcloud's own setting)
  --accelerator-type TYPE   for example v5litepod-256; one host (v5litepod-8) and pods alike
  --runtime-version IMAGE   of the workers (default: the one that Google names for the type)
  --spot                    take Spot capacity: cheaper, and preempted at any time
  --reserved                take it from a reservation
  --valid-for DURATION      withdraw a request that was not met after this long, for example 12h
  --config FILE[:ARGUMENT]  the experiment, a path from the repository's root
  --workdir DIRECTORY       where to write and to resume; outlives the slice: gs://BUCKET/FOLDER
  --max-requests NUMBER     slices to ask for, one after the other (default: 20)
  --max-restarts NUMBER     restarts on one slice after a crash (default: 3)
  --restart-delay SECONDS   pause before each restart, and between questions (default: 60)
  --keep                    leave the slice when the run has finished; it goes on costing money
  --dry-run                 print the commands and run nothing; needs no gcloud
  --help                    print this text

Whatever follows -- goes to avit_jax.main unchanged.
TERM, INT (Ctrl-C) and HUP tell every worker to save and stop; the slice is left as it is.
TEXT
}

name='' zone='' project='' accelerator_type='' runtime_version='' spot=false reserved=false
valid_for='' config='' workdir='' max_requests=20 max_restarts=3 restart_delay=60 keep=false
options=(name zone project accelerator-type runtime-version spot reserved valid-for config workdir
  max-requests max-restarts restart-delay keep)
parse_options "$@"
need name 'a name for the request and its slice'
need zone 'the zone to ask in'
need accelerator-type 'the type of slice, such as v5litepod-256'
need_config_of_repository "$root"
need workdir 'gs://BUCKET/FOLDER'
[[ $workdir == gs://* ]] ||
  fail "--workdir \"$workdir\" goes with the slice when that is preempted; write gs://BUCKET/FOLDER"
need_number max-requests 'a whole number'
need_number max-restarts 'a whole number'
need_number restart-delay 'whole seconds'
if $spot && $reserved; then fail "--spot and --reserved exclude each other; write one of them"; fi
if [[ -z $runtime_version ]]; then
  case $accelerator_type in
    v2-* | v3-* | v4-*) runtime_version=tpu-ubuntu2204-base ;;
    v5litepod-*) runtime_version=v2-alpha-tpuv5-lite ;;
    v5p-*) runtime_version=v2-alpha-tpuv5 ;;
    v6e-*) runtime_version=v2-alpha-tpuv6e ;;
    *) fail "no runtime version is known for --accelerator-type \"$accelerator_type\"; write --runtime-version with the one that Google names for it" ;;
  esac
fi

location=("--zone=$zone")
[[ -z $project ]] || location+=("--project=$project")
queue=(gcloud compute tpus queued-resources)
create=("${queue[@]}" create "$name" "--node-id=$name" "${location[@]}"
  "--accelerator-type=$accelerator_type" "--runtime-version=$runtime_version")
if $spot; then create+=(--spot); fi
if $reserved; then create+=(--reserved); fi
[[ -z $valid_for ]] || create+=("--valid-until-duration=$valid_for")
describe=("${queue[@]}" describe "$name" "${location[@]}" "--format=value(state.state)")
list=("${queue[@]}" list "${location[@]}" "--filter=name ~ /$name\$" "--format=value(name)")
delete=("${queue[@]}" delete "$name" "${location[@]}" --force --quiet)
on_slice=(bash "$root/launch/tpu_vm.sh" "--name=$name" "${location[@]}" --install
  "--config=$config" "--workdir=$workdir" "--max-restarts=$max_restarts"
  "--restart-delay=$restart_delay")
run=("${on_slice[@]}" -- ${flags[@]+"${flags[@]}"})

compose_command python3
if $dry_run; then
  show "${create[@]}"
  show "${describe[@]}"
  "${on_slice[@]}" --dry-run -- ${flags[@]+"${flags[@]}"}
  show "${delete[@]}"
  exit 0
fi
[[ -n $(type -P gcloud) ]] || fail "there is no gcloud command; install the Google Cloud CLI, or add --dry-run"
check_here python3 # a request may wait for hours

forward_stop() {
  interrupted=true stop_requested=true
  [[ -z $child ]] || kill -TERM "$child" 2>/dev/null || true
}
trap forward_stop TERM INT HUP

end_if_stopped() {
  $stop_requested || return 0
  say "request \"$name\" and its slice are left; end them with: $(show "${delete[@]}")"
  exit "$PREEMPTED"
}

# Returns with `state` ACTIVE, or with the one in which a request ended.
await_end_of_waiting() {
  local before=''
  while :; do
    state=$("${describe[@]}") || {
      say "gcloud could not describe request \"$name\" in zone $zone (its own message is above); check --name, --zone and --project"
      exit 1
    }
    [[ $state == "$before" ]] || say "request \"$name\" is $state"
    before=$state
    case $state in
      ACTIVE | FAILED | SUSPENDED) return ;;
    esac
    supervise sleep "$restart_delay"
    end_if_stopped
  done
}

for ((requests = 1; ; requests++)); do
  # One of an earlier call of this script may still be there, with its slice.
  if [[ -z $("${list[@]}") ]]; then
    "${create[@]}" || {
      say "gcloud did not take the request (its own message is above); mend that and repeat this command"
      exit "$BAD_USAGE"
    }
  fi
  await_end_of_waiting
  status=$PREEMPTED
  if [[ $state == ACTIVE ]]; then
    supervise "${run[@]}"
    end_if_stopped
  fi
  if ((status == 0)) && $keep; then
    say "the run has finished; slice \"$name\" is kept and goes on costing money, until: $(show "${delete[@]}")"
    exit 0
  fi
  "${delete[@]}" || say "request \"$name\" could not be taken away; see to it with: $(show "${delete[@]}")"
  ((status == PREEMPTED)) || exit "$status"
  if ((requests >= max_requests)); then
    say "slice \"$name\" was lost and request $requests of $max_requests was the last; repeat this command to go on"
    exit "$PREEMPTED"
  fi
  say "slice \"$name\" is gone; asking for another, $((requests + 1)) of $max_requests, in $restart_delay s"
  supervise sleep "$restart_delay"
  end_if_stopped
done
