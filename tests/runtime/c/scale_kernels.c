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
  for (int i = id * part; i < (id + 1) * part && i < SIZE; i++) workspace[i] = c->x[i] * FACTOR;
  for (int i = id * part; i < (id + 1) * part && i < SIZE; i++) c->y[i] = workspace[i] + c->w[i];
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
