#!/usr/bin/env bash
# Run the properties marked `fuzz` again and again with the Hypothesis profile of that name, each time with
# other examples, until FUZZ_MINUTES are over or one fails. What fails is kept in .hypothesis, and tried first
# by the next one.
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
