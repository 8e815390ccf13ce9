#!/bin/bash
# loopback_cluster.sh up DIR | down DIR: a private, real SLURM from Debian's packages.
# One munged, one slurmctld and four slurmd that play nodes with two GPUs each. No root, no systemd,
# only 127.0.0.1, nothing outside DIR. Afterwards: export SLURM_CONF=DIR/slurm.conf
# Needs: apt-get install -y --no-install-recommends slurmctld slurmd slurm-client munge
set -euo pipefail
verb=${1:?up or down}
dir=$(realpath -m "${2:?folder}")
port=${SLURM_PORT:-36817}  # of slurmctld; the next four are the nodes'

# TERM to our own daemons, by their pid files; what is there after 3 s is killed.
stop() {
    local file pid pids=()
    for file in "$@"; do [[ -s $file ]] && pids+=("$(cat "$file")"); done
    for pid in "${pids[@]}"; do kill -TERM "$pid" 2>/dev/null || true; done
    for pid in "${pids[@]}"; do
        for _ in $(seq 30); do
            kill -0 "$pid" 2>/dev/null || continue 2
            sleep 0.1
        done
        kill -KILL "$pid" 2>/dev/null || true
    done
}

down() {
    shopt -s nullglob
    stop "$dir"/slurmd.*.pid "$dir/slurmctld.pid"
    stop "$dir/munge/private/munged.pid"
    rm -f "$dir"/*.pid
}

configure() {
    cat >"$dir/slurm.conf" <<CONF
ClusterName=loopback
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort=$port
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
AuthType=auth/munge
# A job that is queued again waits until its old credential expires.
AuthInfo=socket=$dir/munge/socket,cred_expire=5
CredType=cred/munge
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool/%n
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.%n.pid
SlurmctldLogFile=$dir/log/slurmctld.log
SlurmdLogFile=$dir/log/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=1024
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MinJobAge=3600
KillWait=2
ReturnToService=2
SlurmdTimeout=60
SlurmdParameters=config_overrides
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
GresTypes=gpu
NodeName=DEFAULT CPUs=${SLURM_NODE_CPUS:-8} RealMemory=131072 State=UNKNOWN
NodeName=gpu1 NodeHostname=localhost NodeAddr=127.0.0.1 Port=$((port + 1)) Gres=gpu:a40:2
NodeName=gpu2 NodeHostname=localhost NodeAddr=127.0.0.1 Port=$((port + 2)) Gres=gpu:a40:2
NodeName=h100 NodeHostname=localhost NodeAddr=127.0.0.1 Port=$((port + 3)) Gres=gpu:h100:2 Weight=10
NodeName=bad1 NodeHostname=localhost NodeAddr=127.0.0.1 Port=$((port + 4)) Gres=gpu:a40:2
PartitionName=main Nodes=ALL Default=YES DefaultTime=60 MaxTime=24:00:00 PriorityTier=1 PreemptMode=REQUEUE GraceTime=30
PartitionName=abrupt Nodes=ALL MaxTime=24:00:00 PriorityTier=1 PreemptMode=REQUEUE GraceTime=0
PartitionName=high Nodes=ALL MaxTime=24:00:00 PriorityTier=10 PreemptMode=OFF
CONF
    # Devices that every machine has stand for GPUs; a count alone is not accepted.
    cat >"$dir/gres.conf" <<'CONF'
AutoDetect=off
NodeName=gpu1,gpu2,bad1 Name=gpu Type=a40 File=/dev/null,/dev/zero
NodeName=h100 Name=gpu Type=h100 File=/dev/null,/dev/zero
CONF
}

up() {
    local private=$dir/munge/private state
    mkdir -p "$dir"/{state,spool,log,munge}
    chmod 755 "$dir"
    chmod 711 "$dir/munge"
    mkdir -p -m 700 "$private"
    [[ -s $private/key ]] || mungekey --create --keyfile="$private/key"
    munged --socket="$dir/munge/socket" --key-file="$private/key" --seed-file="$private/seed" \
        --pid-file="$private/munged.pid" --log-file="$private/munged.log"
    configure
    export SLURM_CONF=$dir/slurm.conf
    slurmctld
    for node in gpu1 gpu2 h100 bad1; do slurmd -N "$node"; done
    for _ in $(seq 200); do
        state=$(timeout 5 sinfo -h -N -o %T 2>/dev/null | sort -u) || true
        [[ $state == idle ]] && return 0
        sleep 0.1
    done
    { timeout 5 sinfo -N -l; tail -n 20 "$dir"/log/*.log; } >&2 || true
    return 1
}

case $verb in
    up) up || { down; exit 1; } ;;
    down) down ;;
    *) exit 2 ;;
esac
