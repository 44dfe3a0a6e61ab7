# The table of bench/gpu.sh: a row for each network, program, batch and precision, from the lines of
# segbench -1 ("unet train 16 cuda-bf16 8.123 ms ... 61.0 % x 1.71 (1.70-1.73)") and of
# bench/peers/gpu.py ("unet train 16 compiled-bf16 9.8 ms ..."). Of equal ones the first counts.
{
    split($4, label, "-")
    key = $1 " " $2 " " $3 " " (label[2] == "" ? "fp32" : label[2])
    if (!(key in seen)) {
        seen[key] = 1
        order[++n] = key
    }
    if (label[1] != "cuda" && label[1] != "host") {
        peer[key, label[1]] = $5
    } else if (!(key in ours)) {
        ours[key] = $5
        others = 0
        for (i = 5; i <= NF; i++) {
            if ($i == "%")
                part[key] = $(i - 1)
            if ($i == "x")
                other[key, ++others] = $(i + 1)
        }
    }
}

function cell(value, form)
{
    return value == "" ? "-" : sprintf(form, value)
}

function best_peer(key, modes, best, m, p)
{
    split("eager compiled autotuned", modes, " ")
    best = ""
    for (m = 1; m <= 3; m++) {
        p = peer[key, modes[m]]
        if (p != "" && (best == "" || p + 0 < best + 0))
            best = p
    }
    return best
}

END {
    form = "%-14s %-8s %5s %-5s %9s %7s %8s %7s %9s %9s %9s %8s\n"
    printf form, "network", "program", "batch", "type", "ours ms", "of max", "unfused", "gemm",
        "eager", "compiled", "autotuned", "best/us"
    for (k = 1; k <= n; k++) {
        key = order[k]
        split(key, field, " ")
        best = best_peer(key)
        ratio = best != "" && ours[key] > 0 ? best / ours[key] : ""
        printf form, field[1], field[2], field[3], field[4], cell(ours[key], "%.3f"),
            cell(part[key], "%.0f%%"), cell(other[key, 1], "%.2fx"), cell(other[key, 2], "%.2fx"),
            cell(peer[key, "eager"], "%.3f"), cell(peer[key, "compiled"], "%.3f"),
            cell(peer[key, "autotuned"], "%.3f"), cell(ratio, "%.2fx")
    }
}
