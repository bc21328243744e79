#!/bin/sh
# A Slurm cluster of one node on this machine, for proofs, all of it on 127.0.0.1 and in one directory.
#
#   benchmarks/slurm/cluster.sh start DIR    # about 3 s; then: export SLURM_CONF=DIR/slurm.conf
#   benchmarks/slurm/cluster.sh status DIR
#   benchmarks/slurm/cluster.sh stop DIR     # jobs, then the daemons, by their pid files; DIR stays
#
# Five daemons, as on a cluster: munged (who is who), mariadbd and slurmdbd (accounting: without it submitit never
# hears of a job that was killed), slurmctld (the queue), slurmd (runs the jobs). Needs root, because slurmd starts jobs
# as their owners, and Debian's packages; their system services need not run, and are not touched: keys, sockets,
# configuration, state, logs and pid files are in DIR. No cgroups (a container may not have them): cores and memory are
# counted, not fenced. The ports are SLURM_PORT (default 16817) and the two after it.
set -eu

PROGRAMS="munged mariadbd mariadb-install-db slurmdbd slurmctld slurmd sinfo"
PACKAGES="slurm-wlm slurmdbd munge mariadb-server"
DAEMONS="munged mariadbd slurmdbd slurmctld slurmd"  # in the order they start

usage() { sed -n '4,6s/^# *//p' "$0" >&2; exit 2; }
fail() { echo "error: $*" >&2; exit 4; }

[ $# -eq 2 ] || usage
for program in $PROGRAMS; do
    command -v "$program" > /dev/null || fail "no $program; apt-get install --no-install-recommends $PACKAGES"
done
umask 022
mkdir -p "$2"
dir=$(cd "$2" && pwd)
port=${SLURM_PORT:-16817}
export SLURM_CONF="$dir/slurm.conf" MYSQL_UNIX_PORT="$dir/mariadb.socket"

alive() { [ -s "$dir/$1.pid" ] && kill -0 "$(cat "$dir/$1.pid")" 2> /dev/null; }

# until_true WHAT COMMAND...: wait up to 30 s for a command to succeed
until_true() {
    what=$1 tries=0
    shift
    until "$@" > /dev/null 2>&1; do
        tries=$((tries + 1))
        [ $tries -lt 150 ] || fail "$what; see $dir/*.log"
        sleep 0.2
    done
}

configure() {
    mkdir -p "$dir/state" "$dir/spool"
    [ -s "$dir/munge.key" ] || (umask 077 && head -c 1024 /dev/urandom > "$dir/munge.key")
    [ -d "$dir/mariadb" ] || mariadb-install-db --no-defaults --user="$(id -un)" --datadir="$dir/mariadb" \
        --auth-root-authentication-method=socket --skip-test-db > "$dir/mariadb-install.log" 2>&1 ||
        fail "mariadb-install-db; see $dir/mariadb-install.log"
    cat > "$dir/slurmdbd.conf" << CONF
AuthType=auth/munge
AuthInfo=socket=$dir/munge.socket
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort=$((port + 2))
CommunicationParameters=NoInAddrAny
SlurmUser=root
PidFile=$dir/slurmdbd.pid
LogFile=$dir/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
CONF
    chmod 600 "$dir/slurmdbd.conf"
    cat > "$dir/slurm.conf" << CONF
ClusterName=proof
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmctldPort=$port
SlurmdPort=$((port + 1))
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$dir/munge.socket
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort=$((port + 2))
AccountingStoragePass=$dir/munge.socket
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.pid
SlurmctldLogFile=$dir/slurmctld.log
SlurmdLogFile=$dir/slurmd.log
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
MailProg=/bin/true
KillWait=10
NodeName=$(hostname -s) NodeAddr=127.0.0.1 CPUs=$(nproc) RealMemory=$(awk '/^MemTotal/ { print int($2 / 1137) }' /proc/meminfo)
PartitionName=proof Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
}

start() {
    [ "$(id -u)" -eq 0 ] || fail "slurmd needs root"
    for daemon in $DAEMONS; do
        if alive "$daemon"; then fail "$daemon runs already, from $dir; stop it first"; fi
    done
    configure
    munged --key-file="$dir/munge.key" --socket="$dir/munge.socket" --pid-file="$dir/munged.pid" \
        --log-file="$dir/munged.log" --seed-file="$dir/munge.seed"
    setsid mariadbd --no-defaults --user="$(id -un)" --datadir="$dir/mariadb" --socket="$dir/mariadb.socket" \
        --pid-file="$dir/mariadbd.pid" --skip-networking > "$dir/mariadbd.log" 2>&1 &
    until_true "mariadbd does not start" mariadb-admin --no-defaults --socket="$dir/mariadb.socket" ping
    slurmdbd
    until_true "slurmdbd does not answer" sacctmgr --noheader list cluster
    sacctmgr --immediate --quiet add cluster proof > /dev/null 2>&1 || true  # it is there on a second start
    slurmctld
    slurmd
    until_true "the node does not come up" sh -c "sinfo --noheader --format=%T | grep -qx idle"
    status
    echo "export SLURM_CONF=$SLURM_CONF"
}

status() {
    for daemon in $DAEMONS; do
        if alive "$daemon"; then echo "$daemon: pid $(cat "$dir/$daemon.pid")"; else echo "$daemon: not running"; fi
    done
    if alive slurmctld; then sinfo; fi
}

stop() {
    if alive slurmctld; then
        scancel --user "$(id -un)"
        until_true "jobs do not end" sh -c "test -z \"\$(squeue --noheader)\""
    fi
    for daemon in slurmd slurmctld slurmdbd mariadbd munged; do
        alive "$daemon" || continue
        pid=$(cat "$dir/$daemon.pid")
        kill "$pid"
        until_true "$daemon (pid $pid) does not stop" sh -c "! kill -0 $pid"
    done
}

case $1 in
    start | status | stop) "$1" ;;
    *) usage ;;
esac
