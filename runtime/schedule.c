/* What of a recipe changes from step to step: the learning rate, the decay of the average of the
 * weights, what a plateau does. All are functions of the state of the run, so that a resumed run
 * takes the same steps.
 *
 * Progress is counted in epochs, parts of one included. A linear warm-up comes first in every
 * schedule; then, with t from 0 to 1 over the epochs behind it:
 *   cosine   min + (lr - min) (1 + cos(pi t)) / 2     (Loshchilov, Hutter 2017)
 *   poly     min + (lr - min) (1 - t)^power           (Liu, Rabinovich, Berg 2015)
 *   plateau  lr * factor^n, no less than min; n counts the times that `plateau` epochs went by
 *            without a better valid Dice
 */
#include "commands.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

double schedule_rate(const RunState *state, int64_t done, int64_t steps)
{
    double at = state->epoch + (double)done / (double)steps;
    double rate = state->lr, least = fmin(state->min_lr, state->lr);
    if (at < state->warmup)
        return rate * fmin(1, (at + 1 / (double)steps) / state->warmup);
    double length = (double)state->epochs - state->warmup;
    double t = length > 0 ? fmin(1, (at - state->warmup) / length) : 1;
    switch (state->schedule) {
    case SCHEDULE_COSINE: return least + (rate - least) * (1 + cos(M_PI * t)) / 2;
    case SCHEDULE_POLY: return least + (rate - least) * pow(1 - t, state->power);
    case SCHEDULE_PLATEAU: return fmax(least, rate * pow(state->factor, state->plateaus));
    case SCHEDULE_CONSTANT: break;
    }
    return rate;
}

/* The average follows closely at first, when weights change fast. */
double schedule_decay(const RunState *state)
{
    double step = (double)state->step + 1;
    return fmin(state->ema, (1 + step) / (10 + step));
}

void schedule_epoch(RunState *state, bool better)
{
    state->worse_epochs = better ? 0 : state->worse_epochs + 1;
    if (state->schedule == SCHEDULE_PLATEAU && state->worse_epochs >= state->plateau) {
        state->plateaus++;
        state->worse_epochs = 0;
    }
}

bool duration_parse(const char *text, double *seconds)
{
    double total = 0;
    for (const char *at = text; *at;) {
        char *end;
        double value = strtod(at, &end);
        double unit = *end == 'h' ? 3600 : *end == 'm' ? 60 : 1;
        if (end == at || !(value >= 0) || !isfinite(value) || (*end && !strchr("hms", *end)))
            return false;
        total += value * unit;
        at = end + (*end != 0);
    }
    *seconds = total;
    return total > 0;
}
