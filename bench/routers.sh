#!/bin/sh
# bench/routers.sh — training steps of recipes/tales.yaml with each router, beside the linear one (bench/routers.md).
# One line each: router, tokens/s, operations of matrix products per token in millions, and the time per token in units
# of the matrix products' own speed during the run, over the linear router's, which takes out the clock.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
run() { # NAME ROUTER
    sed -e "s/^      top_k: 2\$/      top_k: 2\n      router: $2/" -e 's/  sequence: 512/  sequence: 256/' \
        -e 's/  batch: 8/  batch: 4/' recipes/tales.yaml >"$dir/$1.yaml"
    ./coe bench train "$dir/$1.yaml" -r "${RUNS:-5}" -j 2>/dev/null | tr ',{}' '\n' | awk -F': *' -v name="$1" -v first="$dir/first" '
        /"median"/ { median = $2 }
        /"gflops"/ { gflops = $2 }
        /"matrix_gflops"/ { matrix = $2 }
        END {
            cost = matrix / median
            if ((getline line < first) <= 0) { line = cost; print cost > first }
            printf "%-16s %8.1f %8.2f %+7.1f %%\n", name, median, gflops / median * 1e3, (cost / line - 1) * 100
        }'
}
run linear linear
run two_layer '{ kind: two_layer, width: 128 }'
run cosine '{ kind: cosine, width: 64, scale: learned }'
run gru '{ kind: gru, width: 64 }'
run rnn '{ kind: rnn, width: 64 }'
run gating_residual gating_residual
run pre_gated pre_gated
run frozen frozen
run similarity similarity
run attention attention
run uncertainty uncertainty
