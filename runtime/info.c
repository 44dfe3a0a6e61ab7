/* `segrun info`: what a plan or a checkpoint holds, for people and as JSON. Which of the two a file
 * is says its head: a plan begins with PLAN_MAGIC, anything else is read as safetensors.
 */
#include "commands.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static void shape_text(int rank, const int64_t *dims, char text[80])
{
    int length = 0;
    text[0] = 0;
    for (int i = 0; i < rank && length < 60; i++)
        length +=
            snprintf(text + length, (size_t)(80 - length), "%s%" PRId64, i ? " x " : "", dims[i]);
}

static int64_t element_count(int rank, const int64_t *dims)
{
    int64_t count = 1;
    for (int i = 0; i < rank; i++)
        count *= dims[i];
    return count;
}

/* ---- plans ---- */

static const char *const role_names[] = {
    [ROLE_INPUT] = "input",   [ROLE_TARGET] = "target", [ROLE_OUTPUT] = "output",
    [ROLE_LOSS] = "loss",     [ROLE_METRIC] = "metric", [ROLE_GRADIENT] = "gradient",
    [ROLE_UPDATE] = "update",
};

static void count_parameters(const Plan *plan, int64_t *trained, int64_t *kept)
{
    *trained = *kept = 0;
    for (int i = 0; i < plan->n_parameters; i++) {
        const PlanParameter *parameter = &plan->parameters[i];
        *(parameter->trainable ? trained : kept) += params_count(parameter);
    }
}

static double program_flops_per_sample(const PlanProgram *program)
{
    double flops = 0;
    for (int i = 0; i < program->n_steps; i++)
        flops += program->steps[i].flops_per_sample;
    return flops;
}

static void print_program(const PlanProgram *program, int64_t batch, bool verbose)
{
    char sample[16], all[16], shape[80];
    double fixed = (double)program->fixed_bytes;
    format_bytes((double)program->sample_bytes, sample);
    format_bytes(fixed + (double)program->sample_bytes * (double)batch, all);
    printf("  %-9s %4d steps, %8.3f GFLOP a picture, %s a picture, %s for batch %" PRId64 "\n",
           program->name, program->n_steps, 1e-9 * program_flops_per_sample(program), sample, all,
           batch);
    for (int i = 0; i < program->n_tensors; i++) {
        const PlanTensor *tensor = &program->tensors[i];
        if (!verbose && (tensor->role == ROLE_GRADIENT || tensor->role == ROLE_UPDATE))
            continue;
        shape_text(3, tensor->dims, shape);
        printf("    %-8s %-24s %s %s%s\n", role_names[tensor->role], tensor->name,
               tensor->type == PLAN_U8 ? "u8 " : "f32", tensor->batched ? "N x " : "", shape);
    }
    for (int i = 0; verbose && i < program->n_steps; i++)
        printf("    step %3d %s%s\n", i, program->steps[i].label,
               program->steps[i].once ? " (once)" : "");
}

static void print_plan(const Plan *plan, const Options *options)
{
    int64_t trained, kept;
    char bytes[16], shape[80], trained_text[32], kept_text[32];
    count_parameters(plan, &trained, &kept);
    format_bytes((double)plan->parameter_bytes, bytes);
    printf("plan        %s\nmodel       %s, from %s\noptions     %s\n", options->operands[0],
           plan->model, plan->path, *plan->options ? plan->options : "none");
    format_count(trained, trained_text);
    format_count(kept, kept_text);
    printf("parameters  %s trained, %s kept (running statistics), %d tensors, %s\n", trained_text,
           kept_text, plan->n_parameters, bytes);
    for (int i = 0; options->verbose && i < plan->n_parameters; i++) {
        const PlanParameter *parameter = &plan->parameters[i];
        shape_text(parameter->rank, parameter->dims, shape);
        printf("  %-48s %s%s\n", parameter->name, shape, parameter->trainable ? "" : " (kept)");
    }
    for (int t = 0; t < plan->n_targets; t++) {
        const PlanTarget *target = &plan->targets[t];
        printf("target      %s: %d programs, %d kernels\n", target->name, target->n_programs,
               target->n_kernels);
        for (int i = 0; i < target->n_programs; i++)
            print_program(&target->programs[i], options->batch, options->verbose);
        int threads = system_processors();
        format_bytes((double)plan_bytes(plan, target->name, (int)options->batch, threads), bytes);
        printf("memory      %s in all for batch %" PRId64 " and %d threads\n", bytes,
               options->batch, threads);
        for (int i = 0; options->verbose && i < target->n_kernels; i++)
            printf("  kernel %3d %s, %zu bytes of C\n", i, target->kernels[i].name,
                   strlen(target->kernels[i].body));
    }
}

static json_t *program_json(const PlanProgram *program, int64_t batch)
{
    json_t *tensors = json_array();
    for (int i = 0; i < program->n_tensors; i++) {
        const PlanTensor *tensor = &program->tensors[i];
        json_array_append_new(tensors,
                              json_pack("{s:s, s:s, s:s, s:b, s:[I, I, I]}", "name", tensor->name,
                                        "role", role_names[tensor->role], "type",
                                        tensor->type == PLAN_U8 ? "u8" : "f32", "batched",
                                        tensor->batched, "shape", (json_int_t)tensor->dims[0],
                                        (json_int_t)tensor->dims[1], (json_int_t)tensor->dims[2]));
    }
    return json_pack("{s:s, s:i, s:f, s:I, s:I, s:I, s:o}", "name", program->name, "steps",
                     program->n_steps, "flops_per_picture", program_flops_per_sample(program),
                     "fixed_bytes", (json_int_t)program->fixed_bytes, "picture_bytes",
                     (json_int_t)program->sample_bytes, "batch_bytes",
                     (json_int_t)(program->fixed_bytes + batch * program->sample_bytes), "tensors",
                     tensors);
}

static json_t *plan_json(const Plan *plan, const Options *options)
{
    int64_t trained, kept;
    count_parameters(plan, &trained, &kept);
    json_t *parameters = json_array(), *targets = json_array();
    for (int i = 0; i < plan->n_parameters; i++) {
        const PlanParameter *parameter = &plan->parameters[i];
        json_t *shape = json_array();
        for (int k = 0; k < parameter->rank; k++)
            json_array_append_new(shape, json_integer(parameter->dims[k]));
        json_array_append_new(parameters,
                              json_pack("{s:s, s:o, s:b}", "name", parameter->name, "shape", shape,
                                        "trained", parameter->trainable));
    }
    for (int t = 0; t < plan->n_targets; t++) {
        json_t *programs = json_array();
        for (int i = 0; i < plan->targets[t].n_programs; i++)
            json_array_append_new(programs,
                                  program_json(&plan->targets[t].programs[i], options->batch));
        json_array_append_new(targets, json_pack("{s:s, s:i, s:o}", "name", plan->targets[t].name,
                                                 "kernels", plan->targets[t].n_kernels, "programs",
                                                 programs));
    }
    return json_pack("{s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:o, s:o}", "kind", "plan", "model",
                     plan->model, "path", plan->path, "options", plan->options,
                     "trained_parameters", (json_int_t)trained, "kept_parameters", (json_int_t)kept,
                     "batch", (json_int_t)options->batch, "parameters", parameters, "targets",
                     targets);
}

static bool info_plan(const Options *options, Error *error)
{
    Plan *plan = plan_open(options->operands[0], error);
    if (!plan)
        return false;
    bool fine = true;
    if (options->json)
        fine = json_write(options->json, plan_json(plan, options), error);
    else
        print_plan(plan, options);
    plan_close(plan);
    return fine;
}

/* ---- checkpoints and other safetensors ---- */

static void print_curves(const RunState *state)
{
    printf("curves      epoch  train loss  Dice    valid loss  Dice\n");
    for (int i = 0; i < state->n_rows; i++) {
        const EpochRow *row = &state->rows[i];
        if (i >= 3 && i < state->n_rows - 10 && !row->best) {
            if (i == 3)
                printf("              ...  (bests and the last ten)\n");
            continue;
        }
        printf("            %5d  %10.4f  %.4f  %10.4f  %.4f%s\n", row->epoch, row->train_loss,
               row->train_dice, row->valid_loss, row->valid_dice, row->best ? " best" : "");
    }
}

static void print_run(const SafeTensors *file, const RunState *state)
{
    const char *model = checkpoint_value(file, "model"),
               *made = checkpoint_value(file, "model_options");
    printf("model       %s%s%s\n", model ? model : "?", made && *made ? ", " : "",
           made ? made : "");
    printf("recipe      outline as %s", state->outline == OUTLINE_CLASS        ? "a class"
                                        : state->outline == OUTLINE_BACKGROUND ? "background" : "pet");
    const RecipeItem *items;
    int column = 31;
    for (int i = 0, n = recipe_items(&items); i < n; i++) {
        char value[ITEM_BYTES], text[ITEM_BYTES + 40];
        item_print(&items[i], state, false, value);
        if (strcmp(items[i].option, "outline") == 0
            || (items[i].earlier && strcmp(items[i].earlier, value) == 0))
            continue;
        int length = snprintf(text, sizeof text, "%s %s", items[i].option, value);
        bool breaks = column + length + 2 > 79;
        column = (breaks ? 12 : column + 2) + length;
        printf("%s%s", breaks ? ",\n            " : ", ", text);
    }
    printf("\n");
    const char *threshold = checkpoint_value(file, "threshold");
    const char *classes = checkpoint_value(file, "classes");
    for (int k = 0; classes && *classes; k++) {
        int length = (int)strcspn(classes, "\n");
        printf("%-12s%d %.*s\n", k ? "" : "classes", k, length, classes);
        classes += length + (classes[length] == '\n');
    }
    if (threshold && !checkpoint_value(file, "classes"))
        printf("            a pixel is pet from a probability of %s\n", threshold);
    if (state->limit)
        printf("            only the first %" PRId64 " pictures of each split\n", state->limit);
    printf("progress    %d of %" PRId64 " epochs, %" PRId64 " steps", state->epoch, state->epochs,
           state->step);
    if (state->batch_in_epoch)
        printf(", %" PRId64 " batches into epoch %d", state->batch_in_epoch, state->epoch + 1);
    if (state->best_epoch)
        printf("\nbest        valid Dice %.4f in epoch %d", state->best_dice, state->best_epoch);
    putchar('\n');
    if (state->n_rows)
        print_curves(state);
}

static void print_tensors(const SafeTensors *file, bool verbose)
{
    char shape[80];
    if (!verbose)
        printf("tensors     --verbose lists them\n");
    for (int i = 0; verbose && i < file->n_tensors; i++) {
        const SafeTensor *tensor = &file->tensors[i];
        shape_text(tensor->rank, tensor->dims, shape);
        if (strncmp(tensor->name, "optimizer.", 10) != 0)
            printf("  %-48s %-4s %s\n", tensor->name, tensor->dtype, shape);
    }
}

static json_t *tensors_json(const SafeTensors *file)
{
    json_t *metadata = json_object(), *tensors = json_array();
    for (int i = 0; i < file->n_metadata; i++)
        json_object_set_new(metadata, file->keys[i], json_string(file->values[i]));
    for (int i = 0; i < file->n_tensors; i++) {
        const SafeTensor *tensor = &file->tensors[i];
        json_t *shape = json_array();
        for (int k = 0; k < tensor->rank; k++)
            json_array_append_new(shape, json_integer(tensor->dims[k]));
        json_array_append_new(tensors, json_pack("{s:s, s:s, s:o}", "name", tensor->name, "type",
                                                 tensor->dtype, "shape", shape));
    }
    return json_pack("{s:s, s:o, s:o}", "kind", "safetensors", "metadata", metadata, "tensors",
                     tensors);
}

static bool info_tensors(const Options *options, Error *error)
{
    const char *path = options->operands[0];
    SafeTensors *file = safetensors_open(path, error);
    if (!file)
        return false;
    bool fine = true;
    int64_t weights = 0, optimiser = 0;
    char weights_text[32], optimiser_text[32];
    for (int i = 0; i < file->n_tensors; i++) {
        const SafeTensor *tensor = &file->tensors[i];
        *(strncmp(tensor->name, "optimizer.", 10) == 0 ? &optimiser : &weights)
            += element_count(tensor->rank, tensor->dims);
    }
    if (options->json) {
        fine = json_write(options->json, tensors_json(file), error);
    } else {
        RunState state = { 0 };
        format_count(weights, weights_text);
        format_count(optimiser, optimiser_text);
        printf("weights     %s: %d tensors, %s numbers and %s of the optimiser\n", path,
               file->n_tensors, weights_text, optimiser_text);
        if (checkpoint_has_state(file)) {
            fine = checkpoint_state(file, &state, error);
            if (fine)
                print_run(file, &state);
            run_state_close(&state);
        } else {
            for (int i = 0; i < file->n_metadata; i++)
                printf("metadata    %s = %.200s\n", file->keys[i], file->values[i]);
        }
        if (fine)
            print_tensors(file, options->verbose);
    }
    safetensors_close(file);
    return fine;
}

int command_info(const Options *options)
{
    Error error = { 0 };
    char head[sizeof PLAN_MAGIC] = "";
    FILE *in = fopen(options->operands[0], "rb");
    size_t n = in ? fread(head, 1, strlen(PLAN_MAGIC), in) : 0;
    if (in)
        fclose(in);
    bool is_plan = n == strlen(PLAN_MAGIC) && strcmp(head, PLAN_MAGIC) == 0;
    return (is_plan ? info_plan : info_tensors)(options, &error) ? EXIT_FINE : report(&error);
}
