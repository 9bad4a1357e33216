/* kept = the rows of x whose first element is positive; sum = the sum of all rows. Fails on NaN. */
#include "program.h"

enum { ROWS = 2000, COLUMNS = 3 };

static int32_t sift(void *const *a) {
  const float *x = a[0];
  float *kept = a[1];
  int64_t *count = a[2];
  *count = 0;
  for (int row = 0; row < ROWS; row++, x += COLUMNS) {
    if (x[0] != x[0]) return 1;
    if (x[0] > 0) memcpy(kept + COLUMNS * (*count)++, x, COLUMNS * sizeof *x);
  }
  return 0;
}
static int32_t sum(void *const *a) {
  const float *x = a[0];
  float *total = a[1];
  memset(total, 0, COLUMNS * sizeof *total);
  for (int i = 0; i < ROWS * COLUMNS; i++) total[i % COLUMNS] += x[i];
  return 0;
}

static const edgec_kernel kernels[] = {{sift, "sift"}, {sum, "sum"}};
static const int64_t rows[] = {ROWS, COLUMNS}, row[] = {COLUMNS};
static const edgec_tensor inputs[] = {{"x", rows, 2, EDGEC_FLOAT32, ROWS * COLUMNS * 4}};
static const edgec_tensor outputs[] = {
  {"kept", rows, 2, EDGEC_FLOAT32, ROWS * COLUMNS * 4}, {"sum", row, 1, EDGEC_FLOAT32, COLUMNS * 4},
};
static const edgec_tolerance tolerances[] = {{0, 0}, {0, 0}};
static const edgec_arg args[] = {
  {EDGEC_INPUT, 0, 0, 0}, {EDGEC_OUTPUT, 0, 0, 0}, {EDGEC_ARENA, 0, 64, 0},
  {EDGEC_INPUT, 0, 0, 0}, {EDGEC_OUTPUT, 1, 0, 0},
};
static const edgec_step steps[] = {{EDGEC_CALL, 0, 0, 3}, {EDGEC_CALL, 1, 3, 2}};
static const edgec_extent extents[] = {{0, 0, {EDGEC_ARENA, 0, 64, 0}}};
static const edgec_program program = {
  .model = EDGEC_MODEL("sift", "", "", 0, 1, 2, 0),
  .inputs = inputs, .outputs = outputs, .tolerances = tolerances, .extents = extents,
  .kernels = kernels, .args = args, .arg_count = 5, .steps = steps, .step_count = 2,
  .extent_count = 1, .weights = EDGEC_WEIGHTS, .arena_bytes = 128,
};
EDGEC_EXPORT_MODEL(sift, program)
