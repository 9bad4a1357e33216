/* SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception */
/* What the files of the runtime share. */
#ifndef EDGEC_RUNTIME_H
#define EDGEC_RUNTIME_H

#include <pthread.h>
#include <sys/types.h>

#include "program.h"

enum { EDGEC_ALIGNMENT = 64, EDGEC_MAX_THREADS = 256 };

static inline uint64_t edgec_align(uint64_t bytes) {
  return (bytes + EDGEC_ALIGNMENT - 1) / EDGEC_ALIGNMENT * EDGEC_ALIGNMENT;
}

/* One of the threads that share a parallel step. Lane 0 is the thread that called run. */
typedef struct edgec_lane {
  uint32_t unclaimed; /* atomic: tasks of the current job that nobody has claimed */
  uint32_t seen;      /* the generation when the lane's worker was started */
  struct edgec_pool *pool;
  unsigned char *scratch;
  uint64_t scratch_used;
  char padding[64 - 2 * sizeof(uint32_t) - 2 * sizeof(void *) - sizeof(uint64_t)];
} edgec_lane;

typedef struct edgec_group { /* TVMParallelGroupEnv */
  void *sync_handle;
  int32_t num_task;
} edgec_group;

typedef int (*edgec_task)(int task_id, edgec_group *group, void *closure);

typedef struct edgec_pool {
  edgec_lane *lanes;
  pthread_t *workers; /* of lanes 1, 2, ... */
  uint32_t lane_count;
  uint32_t worker_count;
  int started;
  int64_t spin_ns;
  uint64_t scratch_bytes;
  edgec_parallel_for parallel_for;
  void *parallel_for_context;

  /* The job: written by lane 0 while no task of it can be claimed. */
  edgec_task task;
  void *closure;
  int32_t task_count;
  int in_job;

  /* Atomic from here on. */
  uint32_t generation; /* counts jobs */
  uint32_t unfinished; /* tasks of the current job */
  uint32_t sleepers;   /* workers in, or on their way into, `wake` */
  int finisher;        /* lane 0 is in, or on its way into, `finished` */
  int stop;
  int failure;               /* the first non-zero result of a task */
  uint64_t scratch_shortage; /* bytes a kernel asked for beyond its plan */

  pthread_mutex_t mutex;
  pthread_cond_t wake, finished;
} edgec_pool;

typedef struct instance instance;

/* Whatever runs an instance instead of the CPU (cuda.c). Addresses among the instance's pointers
 * are its own, and nobody but it may follow them. */
typedef struct edgec_backend {
  const char *name;
  edgec_status (*run)(instance *, const void *const *inputs, void *const *outputs);
  edgec_status (*launch)(instance *, uint32_t kernel, void *const *args);
  edgec_status (*condition)(instance *, const void *at, unsigned char *value);
  void (*clear_states)(instance *);
  void (*destroy)(instance *);
} edgec_backend;

/* What an edgec_instance is behind its first member. */
struct instance {
  edgec_instance base;
  const edgec_program *program;
  int busy;         /* atomic */
  int64_t owner;    /* atomic: the process that created it, or has run it since a fork() */
  void **pointers;  /* one per argument of the program, in order */
  uint32_t *caller; /* those of them that point to inputs and outputs */
  uint32_t caller_count;
  unsigned char *weights, *arena, *states;
  void *allocated; /* the arena, where it is the instance's own */
  edgec_tensor *results;
  uint64_t *step_ns; /* where to add up the time of each step; NULL: nowhere */
  int64_t clock_ns;  /* when the last of them ended */
  edgec_backend *backend; /* NULL: the CPU */
  void *stream;           /* the caller's, during a run */
  edgec_pool pool;
  char error[256];
  char device[288]; /* what runs it, and why no GPU does */
};

/* Also in a child after fork(), whose workers stayed with the parent. */
EDGEC_HIDDEN void edgec_pool_init(edgec_pool *);
EDGEC_HIDDEN void edgec_pool_join(edgec_pool *);
/* Makes the calling thread lane 0 and returns what it was before, for edgec_pool_leave. */
EDGEC_HIDDEN edgec_lane *edgec_pool_enter(edgec_pool *);
EDGEC_HIDDEN void edgec_pool_leave(edgec_lane *previous);

/* How many threads can run at once: affinity mask and cgroup CPU quota; at least 1. */
EDGEC_HIDDEN uint32_t edgec_host_threads(void);
/* Copies the first of the space-separated `features` that this CPU lacks to `missing` and returns
 * 1; returns 0 when none is lacking, or the system does not tell. */
EDGEC_HIDDEN int edgec_host_lacks(const char *features, char *missing, size_t size);

/* Writes the message to `text`, if there is one, and returns `status`. */
EDGEC_HIDDEN edgec_status edgec_fail(char *text, uint64_t size, edgec_status status,
                                     const char *format, ...);
#define FAIL(self, status, ...) edgec_fail((self)->error, sizeof(self)->error, status, __VA_ARGS__)

/* Takes the instance for one call; EDGEC_BUSY and EDGEC_FORKED leave it alone. */
EDGEC_HIDDEN edgec_status edgec_acquire(instance *);
EDGEC_HIDDEN void edgec_release(instance *);
/* These are for whoever has acquired the instance. */
EDGEC_HIDDEN void edgec_clear_states(instance *);
/* Sets the result's extent that row `row` of the table stands for, at most to its bound. */
EDGEC_HIDDEN void edgec_set_extent(instance *, uint32_t row, int64_t extent);
EDGEC_HIDDEN edgec_status edgec_run_once(instance *, const void *const *inputs,
                                         void *const *outputs);

/* Where an argument lies that is no input or output. */
EDGEC_HIDDEN unsigned char *edgec_place_of(const instance *, const edgec_arg *);
/* All steps, with the pointers as they are. */
EDGEC_HIDDEN edgec_status edgec_execute(instance *);

/* Copies what this version knows of the caller's options; EDGEC_INVALID if they ask for more. */
EDGEC_HIDDEN edgec_status edgec_read_options(edgec_options *known, const edgec_options *given);
/* Makes an instance that `backend` runs, NULL for the CPU. Arena and weights are then addresses of
 * the backend's. */
EDGEC_HIDDEN edgec_status edgec_create_on(edgec_backend *, const edgec_model *,
                                          const edgec_options *, edgec_instance **);

EDGEC_HIDDEN int64_t edgec_now_ns(void);

/* Bytes in one element, 1 for packed 4-bit types, 0 for an unknown type. */
EDGEC_HIDDEN uint32_t edgec_element_bytes(int32_t dtype);
#endif
