# Sourced by the scripts beside it: the environment, params from the shell's variables, and stops.
set -euo pipefail
[[ -n ${VIRTUAL_ENV:-} || ! -f .venv/bin/activate ]] || . .venv/bin/activate

# usage N M TEXT: end with TEXT unless the script has N to M arguments ($given of them).
usage() {
    if ((given < $1 || given > $2)); then
        echo "usage: $3" >&2
        exit 2
    fi
}

# set_param KEY VARIABLE: give params key KEY the value of VARIABLE where that is set.
settings=()
set_param() {
    if [[ -n ${!2:-} ]]; then settings+=(-S "$1=${!2}"); fi
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
    local code=0
    number=$((number + 1))
    if [[ -f $finished && $number -le $(<"$finished") ]]; then
        echo "done before the stop: $*"
        return
    fi
    "$@" &
    child=$!
    [[ -z $stopped ]] || kill -TERM "$child" 2>/dev/null || true
    while :; do
        code=0
        wait "$child" || code=$?  # a signal ends this wait, not the stage
        kill -0 "$child" 2>/dev/null || break
    done
    child=
    if ((code == 0)); then
        mkdir -p "${finished%/*}"
        echo "$number" >"$finished"
        return
    fi
    if [[ -n $stopped || $code == 75 ]] && ((${SLURM_RESTART_COUNT:-0} < 20)) &&
        [[ $(squeue --noheader --jobs "${SLURM_JOB_ID:-0}" --format=%T) == RUNNING ]]; then
        echo "stopped and queued again, to go on from the last state"
        scontrol requeue "$SLURM_JOB_ID"
    fi
    exit "$code"
}

child= stopped= number=0
finished=.work/slurm/${SLURM_JOB_ID:-$$}
trap 'stopped=1; [[ -z $child ]] || kill -TERM "$child" 2>/dev/null || true' USR1 TERM
trap '(($? != 0)) || rm -f "$finished"' EXIT
