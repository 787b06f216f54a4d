# shellcheck shell=bash disable=SC2034,SC2154 # read and set by the scripts that source this file
# What all launch scripts have in common: options, checks, the command itself, and how to say it.
#
# A script gives variables for its options their defaults (`max_restarts=3`), names the options in
# `options`, and calls `parse_options "$@"`; then `--dry-run` is in `dry_run` and what followed `--`
# in `flags`. Written for bash 3.2, which macOS still has: no associative arrays, and an array that
# may be empty is expanded as ${x[@]+"${x[@]}"}.

readonly BAD_USAGE=2  # the exit status of wrong arguments: no restart can mend them
readonly PREEMPTED=75 # the exit status of a run that saved because it was told to stop

flags=() dry_run=false

say() { printf '%s: %s\n' "$script" "$1" >&2; }
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

# Options are written `--name value` or `--name=value`; one that is `false` is a switch.
parse_options() {
  local given variable # named as no option is
  while (($#)); do
    case $1 in
      --help | -h)
        usage
        exit 0
        ;;
      --dry-run) dry_run=true ;;
      --)
        flags=("${@:2}")
        return
        ;;
      *)
        given=${1%%=*} given=${given#--} variable=${given//-/_}
        [[ $1 == --* && " ${options[*]} " == *" $given "* ]] ||
          fail "unknown option \"$1\"; write --help for the options, or put flags of avit_jax.main after --"
        if [[ ${!variable} == false ]]; then
          [[ $1 != *=* ]] || fail "--$given takes no value; write --$given alone"
          printf -v "$variable" true
        elif [[ $1 == *=* ]]; then
          printf -v "$variable" '%s' "${1#*=}"
        else
          (($# > 1)) || fail "$1 came without a value; write $1 VALUE"
          printf -v "$variable" '%s' "$2"
          shift
        fi
        ;;
    esac
    shift
  done
}

# $1 = an option, $2 = what to write for it.
need() {
  local variable=${1//-/_}
  [[ -n ${!variable} ]] || fail "no $1 was given; write --$1 with $2"
}
need_number() {
  local variable=${1//-/_}
  [[ ${!variable} =~ ^[0-9]+$ ]] || fail "--$1 was \"${!variable}\"; write $2, 0 or more"
}

# $1 = the folder that paths of configs start from.
need_config() {
  need config 'configs/avit_small.py or another file'
  (cd "$1" && [[ -f ${config%%:*} ]]) ||
    fail "there is no config file \"${config%%:*}\" in $1; write --config with the path of a file in configs/"
}

# A config that other machines are to find in their copy of the repository.
need_config_of_repository() {
  [[ $config != /* ]] ||
    fail "the config \"$config\" is an absolute path of this machine; write its path from the repository's root"
  need_config "$1"
}

# Other machines write there, and this one may be gone before they are done.
need_workdir_of_all() {
  need workdir "$1"
  [[ $workdir == *://* || $workdir == /* ]] ||
    fail "--workdir \"$workdir\" is a path from wherever a machine happens to start; write $1"
}

# Sets `command` to the program with everything it was given. $1 = the interpreter.
compose_command() {
  command=("$1" -m avit_jax.main --config "$config")
  [[ -z $workdir ]] || command+=(--workdir "$workdir")
  command+=(${flags[@]+"${flags[@]}"})
}

# Has the program say whether it would refuse the command, before any machine is asked for: its
# sentence is printed and ends this script. $1 = an interpreter of this machine.
check_here() {
  local status=0
  if ! "$1" -c 'import avit_jax' 2>/dev/null; then
    say "not checked here, because \"$1\" has no avit_jax: what the program refuses stands in its log"
    return
  fi
  JAX_PLATFORMS=cpu "$1" "${command[@]:1}" --dry_run >/dev/null || status=$?
  ((status == 0)) || exit "$BAD_USAGE"
}

# Runs its arguments and sets `status`. In the background, because bash runs a trap only after a
# foreground command has ended, but interrupts `wait` for one: the trap sets `interrupted`.
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
child='' interrupted=false stop_requested=false
