#!/usr/bin/env bash
# Runs on every worker of a Cloud TPU VM slice, and starts again after a crash or a lost connection.
#
# Each worker runs one process; JAX finds the others by itself. A run that starts again resumes from
# its newest checkpoint. A slice that was preempted is gone: this script says so and stops, because
# only its owner knows how it was created.
set -euo pipefail

readonly BAD_USAGE=2 # the exit status of wrong arguments: no restart can mend them
readonly PREEMPTED=75 # the exit status that means: saved, run the same command again
# shellcheck disable=SC2016 # the worker's shell is to expand this
readonly PID_FILE='"${TMPDIR:-/tmp}/avit_jax.pid"'

usage() {
  cat <<'TEXT'
Usage: launch/tpu_vm.sh --name SLICE --zone ZONE --config FILE[:ARGUMENT] --workdir DIRECTORY
                        [options] [-- FLAG...]

  --name SLICE              the slice's name
  --zone ZONE               its zone, for example us-central2-b
  --project PROJECT         its project (default: gcloud's own setting)
  --config FILE[:ARGUMENT]  the experiment, a path from the repository's root
  --workdir DIRECTORY       where to write and to resume, seen by every worker (a mounted bucket, NFS)
  --directory DIRECTORY     the repository on the workers (default: avit_jax in the home directory)
  --max-restarts NUMBER     restarts after a crash or a lost connection (default: 3)
  --restart-delay SECONDS   pause before each restart (default: 60)
  --ready-timeout SECONDS   how long to wait for a slice that is starting or in repair (default: 1800)
  --python COMMAND          the interpreter on the workers (default: python3)
  --dry-run                 print the commands and run nothing; needs no gcloud
  --help                    print this text

Whatever follows -- goes to avit_jax.main unchanged.
TERM, INT (Ctrl-C) and HUP tell every worker to save and stop, and nothing is started again.
TEXT
}

say() { printf 'tpu_vm.sh: %s\n' "$1" >&2; }
fail() {
  say "$1"
  exit "$BAD_USAGE"
}
# Prints a command as it would have to be typed.
show() {
  local word line='' quote="'\\''"
  for word; do
    [[ $word =~ ^[A-Za-z0-9_./:=,@%+-]+$ ]] || word="'${word//\'/$quote}'"
    line+=" $word"
  done
  printf '%s\n' "${line# }"
}

name='' zone='' project='' config='' workdir='' directory=avit_jax python=python3
max_restarts=3 restart_delay=60 ready_timeout=1800 dry_run=false
while (($#)); do
  case $1 in
    --help | -h)
      usage
      exit 0
      ;;
    --dry-run)
      dry_run=true
      shift
      ;;
    --)
      shift
      break
      ;;
    --*=*) set -- "${1%%=*}" "${1#*=}" "${@:2}" ;;
    --name | --zone | --project | --config | --workdir | --directory | --python | \
      --max-restarts | --restart-delay | --ready-timeout)
      (($# > 1)) || fail "$1 came without a value; write $1 VALUE"
      case $1 in
        --name) name=$2 ;;
        --zone) zone=$2 ;;
        --project) project=$2 ;;
        --config) config=$2 ;;
        --workdir) workdir=$2 ;;
        --directory) directory=$2 ;;
        --python) python=$2 ;;
        --max-restarts) max_restarts=$2 ;;
        --restart-delay) restart_delay=$2 ;;
        --ready-timeout) ready_timeout=$2 ;;
      esac
      shift 2
      ;;
    *) fail "unknown option \"$1\"; write --help for the options, or put flags of avit_jax.main after --" ;;
  esac
done

[[ -n $name ]] || fail "no slice was given; write --name with the name that gcloud compute tpus tpu-vm list shows"
[[ -n $zone ]] || fail "no zone was given; write --zone with the zone of slice \"$name\""
[[ -n $config ]] || fail "no config was given; write --config configs/avit_small.py or another file"
[[ $config != /* ]] || fail "the config \"$config\" is an absolute path of this machine; write its path from the repository's root"
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
[[ -f $root/${config%%:*} ]] || fail "there is no config file \"${config%%:*}\" in $root; write --config with a path from there"
[[ -n $workdir ]] || fail "no workdir was given; write --workdir with a directory that every worker sees"
[[ $max_restarts =~ ^[0-9]+$ ]] || fail "--max-restarts was \"$max_restarts\"; write a whole number, 0 or more"
[[ $restart_delay =~ ^[0-9]+$ ]] || fail "--restart-delay was \"$restart_delay\"; write whole seconds, 0 or more"
[[ $ready_timeout =~ ^[0-9]+$ ]] || fail "--ready-timeout was \"$ready_timeout\"; write whole seconds, 0 or more"

# What each worker does. A process left over by a lost connection would hold the TPU, so it is told
# to save and waited for; the number in the file may since belong to another program, hence the test.
# shellcheck disable=SC2016 # the worker's shell is to expand these
remote_stop='pid=$(cat '"$PID_FILE"' 2>/dev/null) && grep -qs avit_jax.main "/proc/$pid/cmdline" && kill -TERM "$pid" && for _ in $(seq 300); do kill -0 "$pid" 2>/dev/null || break; sleep 1; done'
main=("$python" -m avit_jax.main --config "$config" --workdir "$workdir" "$@")
printf -v remote_main '%q ' "${main[@]}"
printf -v remote_cd 'cd %q' "$directory"
remote_run="$remote_cd && { { $remote_stop; }; echo \$\$ >$PID_FILE; exec ${remote_main% }; }"

location=("--zone=$zone")
[[ -z $project ]] || location+=("--project=$project")
describe=(gcloud compute tpus tpu-vm describe "$name" "${location[@]}" "--format=value(state)")
on_every_worker=(gcloud compute tpus tpu-vm ssh "$name" "${location[@]}" --worker=all)
run=("${on_every_worker[@]}" "--command=$remote_run")
stop=("${on_every_worker[@]}" "--command=$remote_stop")

if $dry_run; then
  show "${describe[@]}"
  show "${run[@]}"
  exit 0
fi
[[ -n $(type -P gcloud) ]] || fail "there is no gcloud command; install the Google Cloud CLI, or add --dry-run"

child='' interrupted=false stop_requested=false
forward_stop() {
  interrupted=true
  $stop_requested && return
  stop_requested=true
  say "telling every worker to save and stop"
  "${stop[@]}" || say "some worker had nothing to stop or could not be reached"
}
trap forward_stop TERM INT HUP

# Runs its arguments and sets `status`; in the background, so that a trap can interrupt the waiting.
supervise() {
  "$@" &
  child=$!
  while :; do
    interrupted=false status=0
    wait "$child" || status=$?
    $interrupted || break
  done
}

pause() {
  supervise sleep "$restart_delay"
  if $stop_requested; then exit "$PREEMPTED"; fi
}

# Returns when the slice can be used; ends the script where waiting cannot help.
await_ready() {
  local state deadline=$((SECONDS + ready_timeout))
  while :; do
    state=$("${describe[@]}") || {
      say "gcloud could not describe slice \"$name\" in zone $zone (its own message is above); check --name, --zone and --project"
      exit 1
    }
    case $state in
      READY) return ;;
      CREATING | STARTING | RESTARTING | REPAIRING | REIMAGING) ;;
      *)
        say "slice \"$name\" is $state; create or start it again and repeat this command, which will resume"
        exit "$PREEMPTED"
        ;;
    esac
    if ((SECONDS >= deadline)); then
      say "slice \"$name\" was still $state after $ready_timeout s; repeat this command when it is READY"
      exit "$PREEMPTED"
    fi
    say "slice \"$name\" is $state; asking again in $restart_delay s"
    pause
  done
}

for ((restarts = 0; ; restarts++)); do
  await_ready
  supervise "${run[@]}"
  if ((status == 0 || status == BAD_USAGE)) || $stop_requested; then exit "$status"; fi
  if ((restarts == max_restarts)); then
    say "the run ended with status $status after $restarts restarts, and no more are allowed; raise --max-restarts to go on"
    exit "$status"
  fi
  say "the run ended with status $status; restart $((restarts + 1)) of $max_restarts in $restart_delay s"
  pause
done
