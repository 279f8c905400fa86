#!/bin/sh
# Try gpurun on the GPU of this machine: tests/gpu/run.sh [--dry] [STEP...]. Needs Python 3.11 or later with torch and Lightning.
# What else is missing comes from build/gpu-bundle, which `make gpu-bundle` makes on a machine with internet.
set -eu
cd "$(dirname "$0")/../.."
python=${PYTHON:-python3}
bundle=$PWD/build/gpu-bundle
lacks() { ! "$python" -c "import $1" 2>/dev/null; }
tag=$("$python" -c 'import sys; print("cp%d%d" % sys.version_info[:2])')
site=$(mktemp -d)
trap 'rm -rf "$site"' EXIT

unpack() { # unpack FOLDER: its wheels that fit this Python, into $site/FOLDER
    for wheel in "$bundle/$1"/*.whl; do
        case $wheel in
        *-none-any.whl | *-abi3-*.whl | *-"$tag"-*.whl) "$python" -m zipfile -e "$wheel" "$site/$1" ;;
        esac
    done
}

if lacks "asyncssh, fabric, packaging, paramiko, pathspec, platformdirs, pytimeparse2, rich, tomlkit, typer"; then
    if [ ! -d "$bundle/gpurun" ]; then
        echo "$python lacks packages of gpurun: run 'make gpu-bundle' where there is internet, and bring build/gpu-bundle here" >&2
        exit 2
    fi
    unpack gpurun
    PYTHONPATH=$site/gpurun${PYTHONPATH:+:$PYTHONPATH}
    export PYTHONPATH
fi
if lacks "tensorboard, torchmetrics" && [ -d "$bundle/jobs" ]; then
    unpack jobs
    GPU_TEST_PACKAGES=$site/jobs # for the jobs alone
    export GPU_TEST_PACKAGES
fi
for module in torch lightning; do # Lightning imports torchmetrics
    if ! PYTHONPATH=${GPU_TEST_PACKAGES-} "$python" -c "import $module" 2>/dev/null; then
        echo "$python has no $module: name another Python by PYTHON=..." >&2
        exit 2
    fi
done
for program in ssh rsync; do
    if ! command -v "$program" >/dev/null && [ -x "$bundle/bin/$program" ]; then
        PATH=$PATH:$bundle/bin
        export PATH
    fi
done
for program in ssh rsync; do
    if ! command -v "$program" >/dev/null; then
        echo "$program is missing, and there is none in build/gpu-bundle" >&2
        exit 2
    fi
done
"$python" -m tests.gpu "$@"
