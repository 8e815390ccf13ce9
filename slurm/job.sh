# Sourced by the scripts beside it, in the checkout: the environment, paths, params from the shell's
# variables, and stops. $here is the folder that the job was sent from.
set -euo pipefail
[[ -n ${VIRTUAL_ENV:-} || ! -f .venv/bin/activate ]] || . .venv/bin/activate

# usage N M TEXT: end with TEXT unless the script has N to M arguments ($given of them).
usage() {
    if ((given < $1 || given > $2)); then
        echo "usage: $3" >&2
        exit 2
    fi
}

# one_of WORDS: set $chosen to the word whose place is the task's.
one_of() {
    local task=${SLURM_ARRAY_TASK_ID:-none}
    if [[ ! $task =~ ^[0-9]+$ ]] || ((task >= $#)); then
        echo "SLURM_ARRAY_TASK_ID: $task; expected 0 to $(($# - 1)), as sbatch sets it: $*" >&2
        exit 2
    fi
    chosen=${*:task+1:1}
}

# place PATH: the path as it was meant where the job was sent from; ~ is the home folder.
place() {
    case $1 in
        '~' | '~/'*) printf '%s\n' "$HOME${1:1}" ;;
        '' | /*) printf '%s\n' "$1" ;;
        *) if [[ $here -ef . ]]; then printf '%s\n' "$1"; else printf '%s\n' "$here/$1"; fi ;;
    esac
}

# set_param KEY VARIABLE: give params key KEY the value of VARIABLE where that is set.
settings=()
set_param() {
    if [[ -n ${!2:-} ]]; then settings+=(-S "$1=${!2}"); fi
}

# set_path KEY VARIABLE: the same for a path, whatever characters are in it.
set_path() {
    if [[ -n ${!2:-} ]]; then settings+=(--set-text "$1=$(place "${!2}")"); fi
}

# set_switch KEY VARIABLE: the same for a switch, where 1 is true and 0 is false.
set_switch() {
    case ${!2:-} in
        '') ;;
        1) settings+=(-S "$1=true") ;;
        0) settings+=(-S "$1=false") ;;
        *) echo "$2=${!2}: expected 0 or 1" >&2; exit 2 ;;
    esac
}

# run WORDS: run a stage. Before the limit or a preemption it saves its state and the job goes back
# into the queue, where stages that were done are passed over; a cancelled job stays cancelled.
run() {
    local code=0 step
    step=$(printf '%q ' "$@")
    if [[ -f $finished ]] && grep -qxF -e "$step" "$finished"; then
        echo "done before the stop: $*"
        return
    fi
    "$@" &
    child=$!
    [[ -z $stopped ]] || kill -TERM "$child" 2>/dev/null || true
    while kill -0 "$child" 2>/dev/null; do
        wait "$child" || true  # a signal ends this wait, not the stage
    done
    wait "$child" || code=$?
    child=
    if ((code == 0)); then
        if [[ -n $job ]]; then
            mkdir -p "${finished%/*}"
            printf '%s\n' "$step" >>"$finished"
        fi
        return
    fi
    if [[ -n $stopped || $code == 75 ]] && ((${SLURM_RESTART_COUNT:-0} < 20)) && runs; then
        echo "stopped and queued again, to go on from the last state"
        scontrol requeue "$job"
    fi
    ((code != 137)) || echo "killed, as by the memory limit: scontrol show job $job" >&2
    exit "$code"
}

# runs: whether SLURM has this job as running; one that was cancelled is not.
runs() {
    [[ -n $job ]] && grep -qx RUNNING <<<"$(squeue --noheader --jobs "$job" --format=%T)"
}

# The last task of an array has the array's own number as its job number, so a task is named in full.
job=${SLURM_JOB_ID:-}
if [[ -n ${SLURM_ARRAY_TASK_ID:-} && -n $job ]]; then
    job=${SLURM_ARRAY_JOB_ID:-$job}_$SLURM_ARRAY_TASK_ID
fi
child= stopped=
# What is done counts after a restart of this very job alone: other clusters have equal numbers.
finished=${SPLATFIX_WORK:-.work}/slurm/${job:-$$}
((${SLURM_RESTART_COUNT:-0} > 0)) || rm -f -- "$finished"
trap 'stopped=1; [[ -z $child ]] || kill -TERM "$child" 2>/dev/null || true' USR1 TERM
trap '(($? != 0)) || rm -f -- "$finished"' EXIT
