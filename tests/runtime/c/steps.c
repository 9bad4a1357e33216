/* Control flow and state.
 *
 * total = sum over i of the four rows of x, row i negated where flags[i] is set (SELECT in REPEAT);
 * reversed[i] = x[3 - i] (a negative stride, by way of the arena);
 * twice = total of the previous run (state) + 2 * (x[0] + x[1] + x[2]) (REPEAT in REPEAT);
 * count = count of the previous run + 1 (state). */
#include "program.h"

enum { COLUMNS = 16, ROW = COLUMNS * 4 };

static int32_t zero(void *const *a) {
  memset(a[0], 0, ROW);
  return 0;
}
static int32_t add(void *const *a) {
  for (int i = 0; i < COLUMNS; i++) ((float *)a[1])[i] += ((const float *)a[0])[i];
  return 0;
}
static int32_t subtract(void *const *a) {
  for (int i = 0; i < COLUMNS; i++) ((float *)a[1])[i] -= ((const float *)a[0])[i];
  return 0;
}
static int32_t copy(void *const *a) {
  memcpy(a[1], a[0], ROW);
  return 0;
}
static int32_t increment(void *const *a) {
  ((int64_t *)a[1])[0] = ((const int64_t *)a[0])[0] + 1;
  return 0;
}

static const edgec_kernel kernels[] = {
  {zero, "zero"}, {add, "add"}, {subtract, "subtract"}, {copy, "copy"}, {increment, "increment"},
};
static const int64_t rows[] = {4, COLUMNS}, row[] = {COLUMNS}, flags[] = {4};
static const edgec_tensor inputs[] = {
  {"x", rows, 2, EDGEC_FLOAT32, 4 * ROW}, {"flags", flags, 1, EDGEC_BOOL, 4},
};
static const edgec_tensor outputs[] = {
  {"total", row, 1, EDGEC_FLOAT32, ROW}, {"reversed", rows, 2, EDGEC_FLOAT32, 4 * ROW},
  {"twice", row, 1, EDGEC_FLOAT32, ROW}, {"count", NULL, 0, EDGEC_INT64, 8},
};
static const edgec_tolerance tolerances[] = {{0, 0}, {0, 0}, {0, 0}, {0, 0}};
static const edgec_arg args[] = {
  /* 0: zero total */ {EDGEC_OUTPUT, 0, 0, 0},
  /* 1: the flag */ {EDGEC_INPUT, 1, 0, 1},
  /* 2: subtract */ {EDGEC_INPUT, 0, 0, ROW}, {EDGEC_OUTPUT, 0, 0, 0},
  /* 4: add */ {EDGEC_INPUT, 0, 0, ROW}, {EDGEC_OUTPUT, 0, 0, 0},
  /* 6: reverse */ {EDGEC_INPUT, 0, 3 * ROW, -ROW}, {EDGEC_ARENA, 0, 128, ROW},
  /* 8: begin twice */ {EDGEC_STATE, 0, 0, 0}, {EDGEC_ARENA, 0, 64, 0},
  /* 10: accumulate */ {EDGEC_INPUT, 0, 0, ROW}, {EDGEC_ARENA, 0, 64, 0},
  /* 12: copy out */ {EDGEC_ARENA, 0, 64, 0}, {EDGEC_OUTPUT, 2, 0, 0},
  /* 14: increment */ {EDGEC_STATE, 1, 0, 0}, {EDGEC_OUTPUT, 3, 0, 0},
  /* 16: reversed */ {EDGEC_ARENA, 0, 128, ROW}, {EDGEC_OUTPUT, 1, 0, ROW},
};
static const edgec_step steps[] = {
  {EDGEC_CALL, 0, 0, 1},
  {EDGEC_REPEAT, 4, 4, 0},
    {EDGEC_SELECT, 1, 1, 1},
      {EDGEC_CALL, 2, 2, 2},
      {EDGEC_CALL, 1, 4, 2},
    {EDGEC_CALL, 3, 6, 2},
  {EDGEC_CALL, 3, 8, 2},
  {EDGEC_REPEAT, 2, 2, 0},
    {EDGEC_REPEAT, 3, 1, 0},
      {EDGEC_CALL, 1, 10, 2},
  {EDGEC_CALL, 3, 12, 2},
  {EDGEC_REPEAT, 4, 1, 0},
    {EDGEC_CALL, 3, 16, 2},
  {EDGEC_CALL, 4, 14, 2},
};
static const edgec_state states[] = {
  {ROW, {EDGEC_OUTPUT, 0, 0, 0}}, {8, {EDGEC_OUTPUT, 3, 0, 0}},
};
static const edgec_program program = {
  .model = EDGEC_MODEL("steps", "", "", 0, 2, 4, 2),
  .inputs = inputs, .outputs = outputs, .tolerances = tolerances, .states = states,
  .kernels = kernels, .args = args, .arg_count = 18, .steps = steps, .step_count = 14,
  .weights = EDGEC_WEIGHTS, .arena_bytes = 384,
};
EDGEC_EXPORT_MODEL(steps, program)
