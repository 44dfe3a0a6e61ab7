/* `normalize(x, mean, std)`: (x - mean) / std with a number a channel, as pretrained encoders want
 * their pictures.
 *
 *     x = normalize(image / 255, mean = [0.485, 0.456, 0.406], std = [0.229, 0.224, 0.225])
 *
 * The numbers are buffers of the model, NAME.mean and NAME.scale (1 / std) of shape [C,1,1], like
 * those that a PyTorch module registers: they are in checkpoints and are not trained. The rest is
 * sub and mul, which keep zeros in the lanes behind the last channel.
 */
#include "build.h"

#include <math.h>
#include <string.h>

bool is_normalize(const char *name)
{
    return !strcmp(name, "normalize");
}

/* A list of as many numbers as x has channels, as a buffer; inverse: of 1 over each. */
static Node *add_buffer(Build *b, const Expr *expr, const Slot *slot, const char *instance,
                        const Node *x, bool inverse)
{
    int64_t channels = x->shape.dims[0];
    Value list = evaluate(b, slot->expr);
    if (list.kind == VALUE_BROKEN)
        return NULL;
    if (list.kind != VALUE_LIST || list.count != channels) {
        build_error(b, slot->expr->loc, "%s: expected a list of %lld numbers, one for each channel "
                    "of x, got %s", slot->name, (long long)channels, value_text(b, list));
        return NULL;
    }
    double *values = arena_alloc(b->arena, (size_t)channels * sizeof *values);
    for (int i = 0; i < list.count; i++) {
        if (!want_number(b, slot->expr->loc, list.items[i], slot->name, &values[i]))
            return NULL;
        if (inverse && !(fabs(values[i]) >= 1e-30)) {
            build_error(b, slot->expr->loc, "%s: cannot divide by %g", slot->name, values[i]);
            return NULL;
        }
        values[i] = inverse ? 1 / values[i] : values[i];
    }
    const char *name = arena_printf(b->arena, "%s.%s", instance, inverse ? "scale" : slot->name);
    name = intern(b->arena, name, strlen(name));
    if (!own_name(b, name, expr->loc))
        return NULL;
    Node *node = graph_add(b->graph, OP_BUFFER, expr->loc, 0, NULL);
    node->name = name;
    node->shape = shape_fixed(3, (int64_t[]){channels, 1, 1});
    node->init = INIT_VALUES;
    node->init_values = values;
    return node;
}

Value call_normalize(Build *b, const Expr *expr)
{
    Slot slots[] = {{.name = "x"}, {.name = "mean"}, {.name = "std"}};
    const Expr *given;
    if (!match(b, expr, slots, 3, &given))
        return BROKEN;
    for (int i = 0; i < 3; i++) {
        if (!slots[i].given) {
            build_error(b, expr->loc, "normalize needs '%s'", slots[i].name);
            return BROKEN;
        }
    }
    Value x = evaluate(b, slots[0].expr);
    if (x.kind == VALUE_BROKEN)
        return BROKEN;
    if (x.kind != VALUE_TENSOR || !x.node->shape.batched) {
        build_error(b, slots[0].expr->loc, "normalize: expected a tensor, got %s", value_text(b, x));
        return BROKEN;
    }
    const char *instance = instance_name(b, expr, given, false);
    if (!instance)
        return BROKEN;
    Node *mean = add_buffer(b, expr, &slots[1], instance, x.node, false);
    Node *scale = add_buffer(b, expr, &slots[2], instance, x.node, true);
    if (!mean || !scale)
        return BROKEN;
    Loc places[2] = {slots[0].expr->loc, slots[1].expr->loc};
    Value centred = apply_sign(b, OP_SUB, expr->loc, x, tensor_value(mean), places);
    if (centred.kind == VALUE_BROKEN)
        return BROKEN;
    return apply_sign(b, OP_MUL, expr->loc, centred, tensor_value(scale), places);
}
