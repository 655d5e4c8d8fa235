#!/bin/sh
# Run targets of the Makefile one after the other, each bounded in time, and sum up.
#
#   tools/steps.sh 'TARGET SECONDS [PROBE]' ...
#
# A target that fails does not stop those after it; any failure makes the exit status 1.
# Where PROBE, a command, fails, this machine cannot do what the step needs: it is skipped, and
# the last line that PROBE printed says why in the summary.  With ISTHMUS_SKIP_NOTHING=1 in the
# environment that is a failure like any other.
set -u
cd "$(dirname "$0")/.."

summary=
failed=0
for step in "$@"; do
    read -r target limit probe << END
$step
END
    began=$(date +%s)
    if ! why=$($probe); then
        outcome="SKIPPED: $(printf '%s' "$why" | tail -n 1)"
        [ "${ISTHMUS_SKIP_NOTHING:-}" != 1 ] || failed=1
    else
        printf '\n==> make %s (at most %s s)\n' "$target" "$limit"
        timeout --kill-after=30 "$limit" make --no-print-directory "$target"
        case $? in
        0) outcome=passed ;;
        124 | 137) outcome="stopped after $limit s" failed=1 ;;
        *) outcome=FAILED failed=1 ;;
        esac
    fi
    summary="$summary$(printf '  %-16s %5s s  %s' "$target" $(($(date +%s) - began)) "$outcome")
"
done
printf '\n%s' "$summary"
exit $failed
