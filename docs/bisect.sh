#!/bin/sh
# For `git bisect run`, in a kernel's tree: build it, run cases on it, and say what git asks. docs/own-kernel.md walks through it.
#
#     git bisect run ~/pmem-harness/docs/bisect.sh cases/splice/tee.yaml -k "e820 and dax_always"
#
# 0: all conform; 1: some do not; 125: this commit does not build or does not boot, or nothing could run, so git takes another one.
harness=$(cd "$(dirname "$0")/.." && pwd)
tree=$(pwd)

nice make olddefconfig > bisect.log 2>&1 && nice make -j"$(nproc)" bzImage >> bisect.log 2>&1 || {
    grep -m 3 -E 'error:|\*\*\* ' bisect.log >&2
    exit 125
}
cd "$harness" || exit 255
python -m pytest -c pyproject.toml -p harness.plugin -o testpaths=cases --kernel "$tree" "$@"
status=$?
[ $status -le 1 ] || status=125
exit $status
