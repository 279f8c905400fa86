#!/bin/sh
# Starts a job: wrapper LOG COMMAND...
# Sets the environment, goes to the workspace and becomes the command, so that the command is the only child of the
# init process: TERM reaches it, and its exit code is the job's. LOG is `-` for a shell, which keeps its terminal.
here=${0%/*}
log=$1
shift
if [ "$log" != - ]; then
    exec >>"$log" 2>&1 || exit 125
fi

. "$here/settings"
if [ -r "$here/env" ]; then
    . "$here/env"
fi
# After the user's own variables: the project's code comes before theirs, and what gpurun tells is always true.
. "$here/settings.last"

cd "$GPURUN_WORKSPACE" || exit 125
mkdir -p "$TMPDIR" "$HOME" || exit 125
code=$GPURUN_WORKSPACE
if [ -d "$code/src" ]; then
    code=$code:$code/src
fi
export PYTHONPATH="$code${PYTHONPATH:+:$PYTHONPATH}"
unset GPURUN_WORKSPACE code here log

if [ "$1" = python ] && ! command -v python >/dev/null 2>&1; then
    shift
    set -- python3 "$@"
fi
exec "$@"
