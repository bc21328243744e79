#!/bin/sh
# Six compositions as six jobs of a Slurm cluster, with one that fails, then one that is cancelled.
#
#   benchmarks/slurm/cluster.sh start DIR/cluster && export SLURM_CONF=DIR/cluster/slurm.conf
#   benchmarks/slurm/sweep.sh DIR/sweep            # on any cluster; outputs and store go to DIR/sweep
#   PARTITION=gpu PYTHON=.venv/bin/python benchmarks/slurm/sweep.sh /shared/DIR
#
# Checks, and stops at the first thing that does not hold:
#   1. an empty store: batch on tiny.en needs more memory than device.memory_gb has, so the exit code is 2; it is listed
#      as failed, and the other five are made, from one fetch and one convert a model
#   2. the same command again: the same table, and no job does any step
#   3. a job cancelled in the cluster: exit code 4, its composition listed; the same command then makes it
set -eu

[ $# -eq 1 ] || { sed -n '4,6s/^# *//p' "$0" >&2; exit 2; }
python=${PYTHON:-python3}
case $python in
    /*) ;;
    */*) python=$PWD/$python ;;  # a path from here, and we go elsewhere
esac
mkdir -p "$1"
cd "$1"
common="validation=quick outputs=outputs store.path=store hydra/launcher=slurm hydra.launcher.cpus_per_task=1
    hydra.launcher.mem_gb=2 ${PARTITION:+hydra.launcher.partition=$PARTITION}"
six="model=debug,tiny.en profile=interactive,duplex_lowmem,batch precision=int8 device.memory_gb=0.3"

fail() { echo "FAILED: $*" >&2; exit 1; }

# sweep EXPECTED NAME OVERRIDES...: run one, keep what it prints in NAME.txt, compare the exit code
sweep() {
    expected=$1 name=$2 code=0
    shift 2
    started=$(date +%s)
    # shellcheck disable=SC2086 # overrides are words
    "$python" -m whisper_factory -m $common "$@" > "$name.txt" 2> "$name.log" || code=$?
    echo "$name: exit code $code, $(($(date +%s) - started)) s"
    [ "$code" -eq "$expected" ] || { cat "$name.txt" "$name.log" >&2; fail "exit code $expected was due"; }
}

# How many steps the jobs of all sweeps here did, or waited for; what was there already "didn't change".
steps() { cat outputs/sweeps/*/.submitit/*/*_log.err | grep -c " done in "; }

[ ! -e outputs ] && [ ! -e store ] || fail "$1 holds a sweep already"
# shellcheck disable=SC2086
sweep 2 first $six
cat first.txt
grep -q "6 compositions, .* 1 failed" first.txt || fail "one of six is listed as failed"
grep -q "exit code 2): tiny.en needs" first.txt || fail "the reason is listed"
for made in fetch:2 convert:2 build:5; do  # two models, which five compositions share
    found=$(find "store/${made%:*}" -mindepth 1 -maxdepth 1 | wc -l)
    [ "$found" -eq "${made#*:}" ] || fail "${made#*:} steps of ${made%:*} were due, not $found"
done
did=$(steps)
# shellcheck disable=SC2086
sweep 2 again $six
cmp first.txt again.txt || fail "the same command says the same"
[ "$(steps)" -eq "$did" ] || fail "no job does a step again"
echo "$(find outputs/sweeps/*/.submitit -name '*_result.pkl' | wc -l) jobs; the last six did no step"

cancel_first_job() {
    until job=$(squeue --noheader --array --name=whisper_factory --states=RUNNING --format=%F_%K | grep '_0$'); do
        sleep 0.2
    done
    until grep -qs "^validate " outputs/sweeps/*/.submitit/"$job"/*_log.err; do sleep 0.2; done
    scancel "$job"
}
cancel_first_job &
sweep 4 cancelled model=tiny.en precision=int8 profile=interactive,duplex_lowmem validation.repeats=5
wait
cat cancelled.txt cancelled.log
grep -q "failed (exit code 4)" cancelled.txt || fail "the cancelled composition is listed"
sweep 0 resumed model=tiny.en precision=int8 profile=interactive,duplex_lowmem validation.repeats=5
cat resumed.txt
