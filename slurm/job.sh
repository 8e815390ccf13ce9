# Sourced by the scripts beside it, in the checkout: the environment, paths, params from the shell's
# variables, and stops. $here is the folder that the job was sent from.
set -euo pipefail

# setup: run SPLATFIX_SETUP, the user's own lines, from `slurm.default.setup` or the shell. The first
# one that fails ends the job, and none changes the arguments, the folder or variables of a script.
setup() {
    local here given root splatfix_checkout=$PWD
    trap 'setup_failed "$BASH_COMMAND ended with $?"' ERR
    set +eu
    eval "$SPLATFIX_SETUP"$'\n:'
    set -eu
    trap - ERR
    cd -- "$splatfix_checkout"
    setup_is_done=1
}

# setup_failed WHY: end the job with a message.
setup_failed() {
    trap - EXIT ERR
    echo "SPLATFIX_SETUP: $1" >&2
    exit 2
}

if [[ -n ${SPLATFIX_SETUP:-} ]]; then
    setup_is_done=
    trap 'setup_failed "a line ended the job"' EXIT
    setup
    [[ -n $setup_is_done ]] || setup_failed "a line returned, so that the rest was not run"
    trap - EXIT
fi
# The repository's own environment, also where that of something else is active.
[[ ! -f .venv/bin/activate ]] || . .venv/bin/activate

# usage N M TEXT: end with TEXT unless the script, which it names, has N to M arguments ($given).
usage() {
    script=${3##*slurm/}
    script=${script%%.slurm*}
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

# Options for a stage, the variables that the script reads, and the keys that they set.
settings=() known=()
export SPLATFIX_VARIABLES=

# reads VARIABLE [KEY]: whether VARIABLE is set; remember that the script reads it, for KEY.
reads() {
    known+=("$1")
    [[ -n ${!1:-} ]] || return 1
    SPLATFIX_VARIABLES+="${2:+ $2=$1}"
}

# set_param KEY VARIABLE: give params key KEY the value of VARIABLE where that is set.
set_param() {
    if reads "$2" "$1"; then settings+=(-S "$1=${!2}"); fi
}

# set_text KEY VARIABLE: the same for a text, whatever characters are in it.
set_text() {
    if reads "$2" "$1"; then settings+=(--set-text "$1=${!2}"); fi
}

# set_path KEY VARIABLE: the same for a path.
set_path() {
    if reads "$2" "$1"; then settings+=(--set-text "$1=$(place "${!2}")"); fi
}

# set_switch KEY VARIABLE: the same for a switch, where 1 is true and 0 is false.
set_switch() {
    if ! reads "$2" "$1"; then return; fi
    case ${!2} in
        1) settings+=(-S "$1=true") ;;
        0) settings+=(-S "$1=false") ;;
        *) echo "$2=${!2}: expected 0 or 1 (it sets $1)" >&2; exit 2 ;;
    esac
}

# set_folder OPTION VARIABLE: give a stage's OPTION the folder that VARIABLE names, where it is set.
set_folder() {
    if reads "$2"; then settings+=("$1" "$(place "${!2}")"); fi
}

# set_fixer VARIABLE: set $fixer to the option for the fixer that VARIABLE names, a folder or one of
# the study's, base and tuned; to nothing where it is not set.
set_fixer() {
    local name folder
    fixer=()
    if ! reads "$1"; then return; fi
    case ${!1} in
        base | tuned) name=${!1} folder=data/difix/${!1} ;;
        *) name=$(place "${!1}") folder=$name ;;
    esac
    if [[ ! -d $folder ]]; then
        echo "$1=${!1}: no folder $folder in $PWD; expected base, tuned or the folder of a fixer" >&2
        exit 2
    fi
    fixer=(--fixer "$name")
}

# set_recipe VARIABLE: set $recipe to the options of the files that VARIABLE names, with colons
# between them; the full-size recipe where it is not set, params.yaml as it is where it is empty.
set_recipe() {
    local file files
    known+=("$1") recipe=()
    if [[ -z ${!1+set} ]]; then
        recipe=(--recipe studies/full.yaml)
        return
    fi
    IFS=: read -ra files <<<"${!1}"
    for file in "${files[@]}"; do
        if [[ -f $(place "$file") ]]; then
            recipe+=(--recipe "$(place "$file")")
        elif [[ -f $file ]]; then  # one of the checkout
            recipe+=(--recipe "$file")
        else
            echo "$1=${!1}: no file $file in $here$([[ $here -ef . ]] || echo " or $PWD")" >&2
            echo "expected files such as studies/full.yaml, with colons between them" >&2
            exit 2
        fi
    done
}

# tell_unread: name the variables that look like a script's but are not read by this one.
tell_unread() {
    local name other near
    for name in $(compgen -e); do
        if [[ ! $name =~ ^(FIXER|RECIPE|(CLOSEST|COPY|COVI|EVAL|GSPLAT|LF|PREP|REBUILD|RESULT|SKIP|TRAIN|VGGT)_) ]] \
            || [[ " ${known[*]} " == *" $name "* ]]; then
            continue
        fi
        other=$(grep -lw -e "$name" slurm/*.slurm | sed 's|.*/||; s|\.slurm$||' | paste -sd, -) \
            || other=
        near=$(nearest "$name" "${known[@]}")
        printf '%s' "WARNING: variable $name: $script does not read it" >&2
        printf '%s' "${near:+; did you mean $near?}" "${other:+; ${other//,/ and } can}" >&2
        [[ -n $near$other ]] || printf '%s' "; it reads ${known[*]:-none}" >&2
        echo >&2
    done
}

# nearest NAME NAMES: the one of NAMES that differs by the fewest letters, if these are few.
nearest() {
    printf '%s\n' "${@:2}" | awk -v name="$1" '
        function least(x, y, z) { return x < y ? (x < z ? x : z) : (y < z ? y : z) }
        {
            for (j = 0; j <= length($0); j++) row[j] = j
            for (i = 1; i <= length(name); i++) {
                before = row[0]; row[0] = i
                for (j = 1; j <= length($0); j++) {
                    above = row[j]
                    changed = before + (substr(name, i, 1) != substr($0, j, 1))
                    row[j] = least(above + 1, row[j - 1] + 1, changed)
                    before = above
                }
            }
            if (NR == 1 || row[length($0)] < fewest) { fewest = row[length($0)]; nearest = $0 }
        }
        END { if (fewest <= length(name) / 3) print nearest }'
}

# run WORDS: run a stage. Before the limit or a preemption it saves its state and the job goes back
# into the queue, where stages that were done are passed over; a cancelled job stays cancelled.
run() {
    local code=0 step
    [[ -n ${told:-} ]] || tell_unread
    told=1
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
