#!/bin/sh
# Starts a job: wrapper LOG COMMAND...
# Sets the environment, goes to the workspace and becomes the command, so that the command is the only child of the
# init process: TERM reaches it, and its exit code is the job's. LOG is `-` for a shell, which keeps its terminal.
gpurun_ro=${0%/*}
gpurun_log=$1
shift
if [ "$gpurun_log" != - ]; then
    # An attempt runs once. `docker start` on a container that was kept comes here again: the first start has left its
    # claim (made by O_EXCL, which is what `set -C` does), and the end of a run takes ro/armed away.
    gpurun_claim=$(. "$gpurun_ro/settings.last" && echo "$GPURUN_OUT/started-$GPURUN_ATTEMPT")
    if ! [ -e "$gpurun_ro/armed" ] || ! (set -C && : >"$gpurun_claim") 2>/dev/null; then
        if [ -e "$gpurun_ro/armed" ] && ! [ -e "$gpurun_claim" ]; then
            echo "gpurun: $gpurun_claim cannot be written" >&2
            exit 125
        fi
        # Not to the log, which is that of the first start.
        echo "gpurun: this attempt was started before, and a job is started once: gpurun resume begins another one" >&2
        exit 114
    fi
    unset gpurun_claim
    exec >>"$gpurun_log" 2>&1 || exit 125
fi

. "$gpurun_ro/settings"
if [ -r "$gpurun_secrets/env" ]; then
    . "$gpurun_secrets/env"
fi
# After the user's own variables: the project's code comes before theirs, and what gpurun tells is always true.
. "$gpurun_ro/settings.last"

cd "$GPURUN_WORKSPACE" || exit 125
mkdir -p "$TMPDIR" "$HOME" || exit 125
gpurun_code=$GPURUN_WORKSPACE
if [ -d "$gpurun_code/src" ]; then
    gpurun_code=$gpurun_code:$gpurun_code/src
fi
export PYTHONPATH="$gpurun_code${PYTHONPATH:+:$PYTHONPATH}"
# What a training tells gpurun. Last, so that nothing of the project is hidden; and not in a shell, which is no run.
if [ "$gpurun_log" != - ] && [ -d "$gpurun_ro/plugin" ]; then
    PYTHONPATH=$PYTHONPATH:$gpurun_ro/plugin
fi
unset gpurun_code gpurun_ro gpurun_log gpurun_secrets

if [ "$1" = python ] && ! command -v python >/dev/null 2>&1; then
    shift
    set -- python3 "$@"
fi
case $1 in
    */*) ;;
    *)
        if ! command -v "$1" >/dev/null 2>&1; then
            echo "gpurun: there is no command $1 in the environment of $GPURUN_RUN_ID" >&2
            exit 127
        fi
        ;;
esac
exec "$@"
