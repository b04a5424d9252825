# Counts what a program costs, by callgrind. For the scripts beside it, which set `short` and `long`: two counts of work.
#
# Every figure is the difference of two runs of different length, divided by the work between them: starting up cancels
# out, and what is left does not depend on the machine's load.
set -euo pipefail
shopt -s inherit_errexit
export SWIFT_DETERMINISTIC_HASHING=1

# Builds the product and makes it countable.
prepare() {  # PRODUCT
  command -v valgrind >/dev/null || { echo "valgrind is not installed: run make deps" >&2; exit 1; }
  swift build --configuration release --product "$1" >&2
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  program=$work/$1
  # Valgrind cannot read Swift's debug information.
  strip -g -o "$program" "$(swift build --configuration release --show-bin-path)/$1"
}

# Prints instructions, heap allocations, retains and releases of one run. A call that goes through a stub is seen twice,
# so of the last three only zero is exact. Where `inside` is set, of what goes on in the functions that it matches alone.
# What has been counted is not counted again.
count() {  # ARGUMENT...
  local run="$work/$* ${inside:-}"
  if [ ! -e "$run.counted" ]; then
    count_once "$@" >"$run.counting"
    mv "$run.counting" "$run.counted"
  fi
  cat "$run.counted"
}

count_once() {
  valgrind --tool=callgrind --callgrind-out-file="$run.profile" --compress-strings=no --compress-pos=no --demangle=no \
    ${inside:+"--toggle-collect=$inside"} "$program" "$@" >"$run.output" 2>&1 || { cat "$run.output" >&2; exit 1; }
  awk -v inside="${inside:-}" '
    /^cfn=/ { callee = substr($0, 5); sub(/\047[0-9]+$/, "", callee) }
    /^calls=/ {
      split($1, field, "=")
      if (callee ~ /^(malloc|calloc|realloc|reallocarray|memalign|aligned_alloc|posix_memalign|valloc|pvalloc)$/)
        allocations += field[2]
      else if (callee ~ /^_?swift_.*[rR]etain/) retains += field[2]
      else if (callee ~ /^_?swift_.*[rR]elease/) releases += field[2]
    }
    /^totals:/ { instructions = $2 }
    END {
      # Every program allocates when it starts: whoever sees none of that sees none of what he is to count.
      if (!(instructions > 0) || (inside == "" && !(allocations > 0))) {
        print "callgrind has counted no instruction, or no allocation of a whole program" > "/dev/stderr"
        exit 1
      }
      print instructions, allocations + 0, retains + 0, releases + 0
    }' "$run.profile"
}

# Counts what `per_unit` will ask for, as many runs side by side as there are processors.
count_ahead() {  # lines of per_unit's arguments
  local line units
  while read -r line; do
    for units in "$short" "$long"; do
      # One that fails fails again where it is asked for; and the last one may have ended just before the wait.
      while [ "$(jobs -rp | wc -l)" -ge "$(nproc)" ]; do wait -n || true; done
      # shellcheck disable=SC2086 # Words without blanks.
      count ${line/COUNT/$units} >/dev/null &
    done
  done
  wait
}

# Prints the same four per unit of work: COUNT in the arguments stands for how much.
per_unit() {  # ARGUMENT... with one COUNT
  local few many
  few=$(count "${@/COUNT/$short}")
  many=$(count "${@/COUNT/$long}")
  echo "$few $many" | awk -v units=$((long - short)) \
    '{ printf "%.2f %.4f %.4f %.4f\n", ($5 - $1) / units, ($6 - $2) / units, ($7 - $3) / units, ($8 - $4) / units }'
}
