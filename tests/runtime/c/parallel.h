/* What a kernel compiled by TVM declares: weak pointers that the runtime sets. */
#ifndef PARALLEL_H
#define PARALLEL_H

#include <stdint.h>

typedef struct group {
  void *sync_handle;
  int32_t num_task;
} group;

typedef int (*task)(int task_id, group *penv, void *closure);

__attribute__((weak)) int (*__TVMBackendParallelLaunch)(task, void *, int);
__attribute__((weak)) void *(*__TVMBackendAllocWorkspace)(int, int, uint64_t, int, int);
__attribute__((weak)) int (*__TVMBackendFreeWorkspace)(int, int, void *);

#endif
