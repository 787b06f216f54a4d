#!/usr/bin/env bash
# Runs on one machine, on all its devices, and starts again after a crash or a preemption.
#
# One process sees every local device, so nothing is distributed. A run that starts again resumes
# from its newest checkpoint, so restarting is only a matter of repeating the command.
set -euo pipefail

readonly BAD_USAGE=2 # the exit status of wrong arguments: no restart can mend them

usage() {
  cat <<'TEXT'
Usage: launch/local.sh --config FILE[:ARGUMENT] [options] [-- FLAG...]

  --config FILE[:ARGUMENT]  the experiment, for example configs/avit_digits.py
  --workdir DIRECTORY       where to write and to resume (default: runs/<config name>)
  --max-restarts NUMBER     restarts after a crash or a preemption (default: 3)
  --restart-delay SECONDS   pause before each restart (default: 5)
  --python COMMAND          the interpreter (default: python)
  --dry-run                 print the command and run nothing
  --help                    print this text

Whatever follows -- goes to avit_jax.main unchanged, for example -- --mode eval.
TERM, INT (Ctrl-C) and HUP reach the run as TERM: it saves, and is not started again.
TEXT
}

say() { printf 'local.sh: %s\n' "$1" >&2; }
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

config='' workdir='' max_restarts=3 restart_delay=5 python=python dry_run=false
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
    --config | --workdir | --max-restarts | --restart-delay | --python)
      (($# > 1)) || fail "$1 came without a value; write $1 VALUE"
      case $1 in
        --config) config=$2 ;;
        --workdir) workdir=$2 ;;
        --max-restarts) max_restarts=$2 ;;
        --restart-delay) restart_delay=$2 ;;
        --python) python=$2 ;;
      esac
      shift 2
      ;;
    *) fail "unknown option \"$1\"; write --help for the options, or put flags of avit_jax.main after --" ;;
  esac
done

[[ -n $config ]] || fail "no config was given; write --config configs/avit_digits.py or another file"
[[ -f ${config%%:*} ]] || fail "there is no config file \"${config%%:*}\"; write --config with the path of a file in configs/"
[[ $max_restarts =~ ^[0-9]+$ ]] || fail "--max-restarts was \"$max_restarts\"; write a whole number, 0 or more"
[[ $restart_delay =~ ^[0-9]+$ ]] || fail "--restart-delay was \"$restart_delay\"; write whole seconds, 0 or more"

# Without these, glibc maps the large temporaries of every step anew: a fifth of the time on a CPU
# (docs/performance/cpu.md). Other systems ignore the variable.
export GLIBC_TUNABLES=${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=8589934592:glibc.malloc.trim_threshold=8589934592:glibc.malloc.top_pad=268435456:glibc.malloc.arena_max=1}

command=("$python" -m avit_jax.main --config "$config")
[[ -z $workdir ]] || command+=(--workdir "$workdir")
command+=("$@")

if $dry_run; then
  show "${command[@]}"
  exit 0
fi
[[ -n $(type -P "$python") ]] || fail "there is no interpreter \"$python\"; write --python with the path of one that has avit_jax installed"

child='' interrupted=false stop_requested=false
forward_stop() {
  interrupted=true stop_requested=true
  [[ -z $child ]] || kill -TERM "$child" 2>/dev/null || true
}
trap forward_stop TERM INT HUP

# Runs its arguments and sets `status`. In the background, because bash runs a trap only after a
# foreground command has ended, but interrupts `wait` for one.
supervise() {
  "$@" &
  child=$!
  # A signal may have come before the child had a number to send it to.
  if $stop_requested; then kill -TERM "$child" 2>/dev/null || true; fi
  while :; do
    interrupted=false status=0
    wait "$child" || status=$?
    $interrupted || break
  done
  child=''
}

for ((restarts = 0; ; restarts++)); do
  supervise "${command[@]}"
  if ((status == 0 || status == BAD_USAGE)) || $stop_requested; then exit "$status"; fi
  last_status=$status
  if ((restarts == max_restarts)); then
    say "the run ended with status $last_status after $restarts restarts, and no more are allowed; raise --max-restarts to go on"
    exit "$last_status"
  fi
  say "the run ended with status $last_status; restart $((restarts + 1)) of $max_restarts in $restart_delay s"
  supervise sleep "$restart_delay"
  if $stop_requested; then exit "$last_status"; fi
done
