/* Counts every allocation of the process, and wants none between creation and destruction. */
#include <stdio.h>
#include <stdlib.h>

#include "edgec.h"

extern const edgec_model *edgec_model_alpha(void);
extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);

enum { SIZE = 1024 };
static int allocations;

void *malloc(size_t size) {
  __atomic_add_fetch(&allocations, 1, __ATOMIC_RELAXED);
  return __libc_malloc(size);
}
void *calloc(size_t count, size_t size) {
  __atomic_add_fetch(&allocations, 1, __ATOMIC_RELAXED);
  return __libc_calloc(count, size);
}
void *realloc(void *memory, size_t size) {
  __atomic_add_fetch(&allocations, 1, __ATOMIC_RELAXED);
  return __libc_realloc(memory, size);
}
int posix_memalign(void **memory, size_t alignment, size_t size) {
  __atomic_add_fetch(&allocations, 1, __ATOMIC_RELAXED);
  return (*memory = __libc_memalign(alignment, size)) ? 0 : 12;
}

static float weights[16 + SIZE] __attribute__((aligned(64))), x[SIZE], y[SIZE];

static int allocated_by_runs(uint32_t threads, int warm_up) {
  const void *inputs[] = {x};
  void *outputs[] = {y};
  edgec_options options = edgec_default_options();
  edgec_instance *alpha;
  options.threads = threads;
  options.weights = weights;
  options.weights_size = sizeof weights;
  if (edgec_create(edgec_model_alpha(), &options, &alpha)) exit(2);
  for (int i = 0; i < warm_up; i++)
    if (edgec_run(alpha, inputs, outputs, NULL)) exit(3);
  int before = __atomic_load_n(&allocations, __ATOMIC_RELAXED);
  for (int i = 0; i < 100; i++)
    if (edgec_run(alpha, inputs, outputs, NULL)) exit(4);
  int after = __atomic_load_n(&allocations, __ATOMIC_RELAXED);
  edgec_destroy(alpha);
  return after - before;
}

int main(void) {
  int created = allocations, alone = allocated_by_runs(1, 0);
  int together = allocated_by_runs(3, 1); /* the first run starts threads, and libc allocates */
  printf("%d alone, %d together\n", alone, together);
  return alone || together || allocations == created;
}
