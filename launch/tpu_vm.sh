#!/usr/bin/env bash
# Runs on every worker of a Cloud TPU VM slice, and starts again after a crash or a lost connection.
#
# Each worker runs one process; JAX finds the others by itself. A run that starts again resumes from
# its newest checkpoint. A slice that was preempted is gone: this script says so and stops, because
# only its owner knows how it was created.
set -euo pipefail
script=tpu_vm.sh
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=launch/common.sh
source "$root/launch/common.sh"

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
  --workdir DIRECTORY       where to write and to resume, seen by every worker: gs://BUCKET/FOLDER,
                            or an absolute path of a disk that all have mounted
  --directory DIRECTORY     the repository on the workers (default: avit_jax in the home directory)
  --max-restarts NUMBER     restarts after a crash or a lost connection (default: 3)
  --restart-delay SECONDS   pause before each restart (default: 60)
  --ready-timeout SECONDS   how long to wait for a slice that is starting or in repair (default: 1800)
  --install                 copy this repository to every worker and install it there first
  --python COMMAND          the interpreter on the workers (default: .venv/bin/python in their
                            repository, which --install makes; the images' own python3 is too old)
  --dry-run                 print the commands and run nothing; needs no gcloud
  --help                    print this text

Whatever follows -- goes to avit_jax.main unchanged.
TERM, INT (Ctrl-C) and HUP tell every worker to save and stop, and nothing is started again.
TEXT
}

name='' zone='' project='' config='' workdir='' directory=avit_jax python=.venv/bin/python
install=false max_restarts=3 restart_delay=60 ready_timeout=1800
options=(name zone project config workdir directory python install max-restarts restart-delay
  ready-timeout)
parse_options "$@"
need name 'the name that gcloud compute tpus tpu-vm list shows'
need zone 'the zone of the slice'
need_config_of_repository "$root"
need_workdir_of_all 'a place that every worker sees, such as gs://BUCKET/FOLDER or /mnt/shared/run'
need_number max-restarts 'a whole number'
need_number restart-delay 'whole seconds'
need_number ready-timeout 'whole seconds'

# What each worker does. A process left over by a lost connection would hold the TPU, so it is told
# to save and waited for; the number in the file may since belong to another program, hence the test.
# shellcheck disable=SC2016 # the worker's shell is to expand these
remote_stop='pid=$(cat '"$PID_FILE"' 2>/dev/null) && grep -qs avit_jax.main "/proc/$pid/cmdline" && kill -TERM "$pid" && for _ in $(seq 300); do kill -0 "$pid" 2>/dev/null || break; sleep 1; done'
compose_command "$python"
printf -v remote_main '%q ' "${command[@]}"
printf -v remote_cd 'cd %q' "$directory"
remote_run="$remote_cd && { { $remote_stop; }; echo \$\$ >$PID_FILE; exec ${remote_main% }; }"
# What the first worker is asked before any begins: whether all is there, and whether the program
# would refuse the command. It touches no TPU, so a run that still holds it is not in the way.
printf -v remote_check 'cd %q 2>/dev/null || { echo %q >&2; exit %d; }; command -v %q >/dev/null || { echo %q >&2; exit %d; }; JAX_PLATFORMS=cpu %s--dry_run' \
  "$directory" "the workers have no folder \"$directory\"; add --install, or write --directory" "$BAD_USAGE" \
  "$python" "the workers have no \"$python\" in \"$directory\"; add --install, or write --python with one of 3.11 or later that has avit_jax" "$BAD_USAGE" \
  "$remote_main"
printf -v remote_install 'mkdir -p %q && tar -xzf avit_jax.tgz -C %q && bash %q/launch/install_worker.sh tpu,gcs' \
  "$directory" "$directory" "$directory"

location=("--zone=$zone")
[[ -z $project ]] || location+=("--project=$project")
describe=(gcloud compute tpus tpu-vm describe "$name" "${location[@]}" "--format=value(state)")
on_every_worker=(gcloud compute tpus tpu-vm ssh "$name" "${location[@]}" --worker=all)
on_first_worker=(gcloud compute tpus tpu-vm ssh "$name" "${location[@]}" --worker=0)
archive=${TMPDIR:-/tmp}/avit_jax.tgz
copy=(gcloud compute tpus tpu-vm scp "$archive" "$name:avit_jax.tgz" "${location[@]}" --worker=all)
install_there=("${on_every_worker[@]}" "--command=$remote_install")
check=("${on_first_worker[@]}" "--command=$remote_check")
run=("${on_every_worker[@]}" "--command=$remote_run")
stop=("${on_every_worker[@]}" "--command=$remote_stop")

if $dry_run; then
  show "${describe[@]}"
  if $install; then
    show "${copy[@]}"
    show "${install_there[@]}"
  fi
  show "${check[@]}"
  show "${run[@]}"
  exit 0
fi
[[ -n $(type -P gcloud) ]] || fail "there is no gcloud command; install the Google Cloud CLI, or add --dry-run"
check_here python3

forward_stop() {
  interrupted=true
  $stop_requested && return
  stop_requested=true
  say "telling every worker to save and stop"
  "${stop[@]}" || say "some worker had nothing to stop or could not be reached"
}
trap forward_stop TERM INT HUP

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

# What git knows or would add, so no runs, environments and secrets of this machine.
pack() {
  git -C "$root" ls-files -z --cached --others --exclude-standard |
    tar -C "$root" --null -czf "$archive" -T -
}

# Runs the program on all workers, once they are known to have it and it takes the command; `status`
# is that of the first step that failed.
prepared=false
attempt() {
  if ! $prepared; then
    if $install; then
      pack || fail "the repository could not be packed into $archive (the message is above); --install needs git, tar and room there"
      supervise "${copy[@]}"
      ((status == 0)) || return 0
      supervise "${install_there[@]}"
      ((status == 0)) || return 0
    fi
    supervise "${check[@]}"
    ((status == 0)) || return 0
    prepared=true
  fi
  supervise "${run[@]}"
}

for ((restarts = 0; ; restarts++)); do
  await_ready
  attempt
  if ((status == 0 || status == BAD_USAGE)) || $stop_requested; then exit "$status"; fi
  if ((restarts == max_restarts)); then
    say "the run ended with status $status after $restarts restarts, and no more are allowed; raise --max-restarts to go on"
    exit "$status"
  fi
  say "the run ended with status $status; restart $((restarts + 1)) of $max_restarts in $restart_delay s"
  pause
done
