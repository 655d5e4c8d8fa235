#!/bin/sh
# Run targets of the Makefile one after the other, each bounded in time, and sum up.
#
#   tools/steps.sh 'TARGET SECONDS' ...
#
# A target that fails does not stop those after it; any failure makes the exit status 1.
set -u
cd "$(dirname "$0")/.."

summary=
failed=0
for step in "$@"; do
    target=${step% *}
    limit=${step#* }
    printf '\n==> make %s (at most %s s)\n' "$target" "$limit"
    began=$(date +%s)
    timeout --kill-after=30 "$limit" make --no-print-directory "$target"
    case $? in
    0) outcome=passed ;;
    124 | 137) outcome="stopped after $limit s" failed=1 ;;
    *) outcome=FAILED failed=1 ;;
    esac
    summary="$summary$(printf '  %-16s %5s s  %s' "$target" $(($(date +%s) - began)) "$outcome")
"
done
printf '\n%s' "$summary"
exit $failed
