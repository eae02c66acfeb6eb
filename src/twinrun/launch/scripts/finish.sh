set -uo pipefail

(twinrun finish --expect-grid "$grid")
code=$?
if [ "$code" = 3 ]; then
  echo "to submit only the missing runs again: cd $(printf %q "$PWD") && bash slurm/submit.sh --missing"
fi
exit "$code"
