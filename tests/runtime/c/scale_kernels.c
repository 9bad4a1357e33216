/* Kernels of `scale`. The names are the same for every FACTOR, as those of two compiled models are. */
#include <string.h>

#include "parallel.h"

enum { SIZE = 1024 };

typedef struct closure {
  const float *x, *w;
  float *y;
} closure;

static int scale_part(int id, group *group, void *argument) {
  closure *c = argument;
  int part = (SIZE + group->num_task - 1) / group->num_task;
  float *workspace = __TVMBackendAllocWorkspace(1, 0, SIZE * sizeof(float), 2, 32);
  if (!workspace) return -1;
  int start = id * part, count = start + part < SIZE ? part : SIZE - start;
  for (int i = 0; i < count; i++) workspace[i] = c->x[start + i] * FACTOR;
  for (int i = 0; i < count; i++) c->y[start + i] = workspace[i] + c->w[start + i];
  return __TVMBackendFreeWorkspace(1, 0, workspace);
}

int32_t k0(void *x, void *w, void *y) {
  closure c = {x, w, y};
  return __TVMBackendParallelLaunch(scale_part, &c, 0);
}

int32_t k1(void *x, void *y) {
  memcpy(y, x, SIZE * sizeof(float));
  return 0;
}
