/* y = FACTOR * x + w: two steps, one parallel with a workspace, weights, an arena. */
#include "program.h"

extern int32_t k0(void *, void *, void *);
extern int32_t k1(void *, void *);
static int32_t s0(void *const *a) { return k0(a[0], a[1], a[2]); }
static int32_t s1(void *const *a) { return k1(a[0], a[1]); }

static const edgec_kernel kernels[] = {{s0, "scale"}, {s1, "copy"}};
static const int64_t shape[] = {1, 1024};
static const edgec_tensor inputs[] = {{"x", shape, 2, EDGEC_FLOAT32, 4096}};
static const edgec_tensor outputs[] = {{"y", shape, 2, EDGEC_FLOAT32, 4096}};
static const edgec_tolerance tolerances[] = {{1e-4, 1e-5}};
static const edgec_arg args[] = {
  {EDGEC_INPUT, 0, 0, 0}, {EDGEC_WEIGHT, 0, 64, 0}, {EDGEC_ARENA, 0, 4096, 0},
  {EDGEC_ARENA, 0, 4096, 0}, {EDGEC_OUTPUT, 0, 0, 0},
};
static const edgec_step steps[] = {{EDGEC_CALL, 0, 0, 3}, {EDGEC_CALL, 1, 3, 2}};
static const edgec_program program = {
  .model = EDGEC_MODEL("scale", FEATURES, SHA256, 64 + 4096, 1, 1, 0),
  .inputs = inputs, .outputs = outputs, .tolerances = tolerances,
  .kernels = kernels, .args = args, .arg_count = 5, .steps = steps, .step_count = 2,
  .weights = EDGEC_WEIGHTS, .arena_bytes = 8192, .scratch_bytes = 4096,
};
#define EXPORT(NAME) EDGEC_EXPORT_MODEL(NAME, program)
EXPORT(NAME)
