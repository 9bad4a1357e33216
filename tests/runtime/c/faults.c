/* One kernel that does what x[0] asks for: see the enumeration. Its output is a mode's finding. */
#define _GNU_SOURCE
#include <time.h>

#include "parallel.h"
#include "program.h"

enum { NOTHING, FAIL, FAIL_IN_TASK, WANT_SCRATCH, SLEEP, ROUNDING, NESTED, MANY_TASKS, STACKED };

static int failing_task(int id, group *group, void *closure) {
  (void)closure;
  return id == group->num_task - 1 ? -9 : 0;
}

/* What a sum of 1 and next to nothing is rounded to. */
static int rounding_task(int id, group *group, void *closure) {
  volatile float one = 1, little = 1e-9f;
  (void)group;
  ((float *)closure)[id] = one + little;
  return 0;
}

static int count_task(int id, group *group, void *closure) {
  (void)group;
  __atomic_add_fetch((int32_t *)closure + id % 8, 1, __ATOMIC_RELAXED);
  return 0;
}

static int nested_task(int id, group *group, void *closure) {
  (void)id, (void)group;
  return __TVMBackendParallelLaunch(count_task, closure, 8);
}

/* Workspaces of this thread lie one after the other, whatever happens between. */
static int stacked(float *y) {
  char *first = __TVMBackendAllocWorkspace(1, 0, 64, 2, 32);
  int32_t counts[8] = {0};
  int failed = __TVMBackendParallelLaunch(count_task, counts, 8);
  failed |= __TVMBackendParallelLaunch(count_task, counts, 8);
  char *second = __TVMBackendAllocWorkspace(1, 0, 64, 2, 32);
  y[0] = (float)(second - first);
  return failed | __TVMBackendFreeWorkspace(1, 0, second) | __TVMBackendFreeWorkspace(1, 0, first);
}

static int32_t obey(void *const *a) {
  int mode = (int)((const float *)a[0])[0];
  float *y = a[1];
  int32_t counts[8] = {0};
  struct timespec moment = {0, 300 * 1000 * 1000};
  for (int i = 0; i < 8; i++) y[i] = -1;
  switch (mode) {
    case FAIL: return -7;
    case FAIL_IN_TASK: return __TVMBackendParallelLaunch(failing_task, NULL, 0);
    case WANT_SCRATCH: return __TVMBackendAllocWorkspace(1, 0, 1000, 2, 32) ? 0 : -1;
    case SLEEP: while (nanosleep(&moment, &moment)) {} return 0;
    case ROUNDING: return __TVMBackendParallelLaunch(rounding_task, y, 0);
    case STACKED: return stacked(y);
    case NESTED: __TVMBackendParallelLaunch(nested_task, counts, 2); break;
    case MANY_TASKS: __TVMBackendParallelLaunch(count_task, counts, 1000); break;
    default: break;
  }
  for (int i = 0; i < 8; i++) y[i] = (float)counts[i];
  return 0;
}

static const edgec_kernel kernels[] = {{obey, "obey"}};
static const int64_t one[] = {1}, eight[] = {8};
static const edgec_tensor inputs[] = {{"x", one, 1, EDGEC_FLOAT32, 4}};
static const edgec_tensor outputs[] = {{"y", eight, 1, EDGEC_FLOAT32, 32}};
static const edgec_tolerance tolerances[] = {{0, 0}};
static const edgec_arg args[] = {{EDGEC_INPUT, 0, 0, 0}, {EDGEC_OUTPUT, 0, 0, 0}};
static const edgec_step steps[] = {{EDGEC_CALL, 0, 0, 2}};
static const edgec_program program = {
  .model = EDGEC_MODEL("faults", "", "", 0, 1, 1, 0),
  .inputs = inputs, .outputs = outputs, .tolerances = tolerances,
  .kernels = kernels, .args = args, .arg_count = 2, .steps = steps, .step_count = 1,
  .weights = EDGEC_WEIGHTS, .scratch_bytes = 128,
};
EDGEC_EXPORT_MODEL(faults, program)
