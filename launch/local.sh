#!/usr/bin/env bash
# Runs on one machine, on all its devices, and starts again after a crash or a preemption.
#
# One process sees every local device, so nothing is distributed. A run that starts again resumes
# from its newest checkpoint, so restarting is only a matter of repeating the command.
set -euo pipefail
script=local.sh
# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

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

config='' workdir='' max_restarts=3 restart_delay=5 python=python
options=(config workdir max-restarts restart-delay python)
parse_options "$@"
need_config "$PWD"
need_number max-restarts 'a whole number'
need_number restart-delay 'whole seconds'

# Without these, glibc maps the large temporaries of every step anew: a fifth of the time on a CPU
# (docs/performance/cpu.md). Other systems ignore the variable.
export GLIBC_TUNABLES=${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=8589934592:glibc.malloc.trim_threshold=8589934592:glibc.malloc.top_pad=268435456:glibc.malloc.arena_max=1}

compose_command "$python"
if $dry_run; then
  show "${command[@]}"
  exit 0
fi
[[ -n $(type -P "$python") ]] || fail "there is no interpreter \"$python\"; write --python with the path of one that has avit_jax installed"

forward_stop() {
  interrupted=true stop_requested=true
  [[ -z $child ]] || kill -TERM "$child" 2>/dev/null || true
}
trap forward_stop TERM INT HUP

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
