#!/usr/bin/env bash
# Run the tests marked `fuzz` repeatedly with the Hypothesis profile of that name, each time with different
# examples, until FUZZ_MINUTES are over or a test fails. Failing examples are kept in .hypothesis; the next run
# tries them first.
set -euo pipefail
python=$1
shift
minutes=${FUZZ_MINUTES:-10}
end=$((SECONDS + minutes * 60))

FUZZ_MINUTES=$(((minutes + 3) / 4)) "$python" -m pytest -q -m fuzz -n0 --timeout=0 tests/server/test_openapi.py "$@"
while [ $SECONDS -lt $end ]; do
    "$python" -m pytest -q -m fuzz --timeout=0 --hypothesis-profile=fuzz \
        --deselect=tests/server/test_openapi.py "$@"
done
