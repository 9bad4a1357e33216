/* SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception */
/* The child's side of a trial: a kernel is loaded, called in bursts, and timed. */
#define _GNU_SOURCE
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/prctl.h>
#endif

#include "trial.h"

enum { LEAST_BURSTS = 3, MOST_CALLS = 10000 };

/* A kernel ready to be called. */
typedef struct candidate {
  const edgec_request *asked;
  const edgec_memory *memory;
  edgec_pool pool;
  const unsigned char *entry;
  uint32_t copy; /* which copy of the constants is next */
  int restores;  /* whether calls write over what they read */
} candidate;

/* More arguments than a kernel has are passed and go unread, which the calling conventions of
 * x86-64 and AArch64 allow. */
static int32_t call(const candidate *c, void *const *a) {
#define FOUR(i) a[i], a[i + 1], a[i + 2], a[i + 3]
#define SIXTEEN(i) FOUR(i), FOUR(i + 4), FOUR(i + 8), FOUR(i + 12)
#define P4 void *, void *, void *, void *
#define P16 P4, P4, P4, P4
  uint32_t count = c->asked->trial->buffer_count;
  if (count <= 4) return ((int32_t (*)(P4))(uintptr_t)c->entry)(FOUR(0));
  if (count <= 16) return ((int32_t (*)(P16))(uintptr_t)c->entry)(SIXTEEN(0));
  return ((int32_t (*)(P16, P16, P16, P16))(uintptr_t)c->entry)(SIXTEEN(0), SIXTEEN(16),
                                                                 SIXTEEN(32), SIXTEEN(48));
}

/* Calls the kernel so often; what it takes is added to `ns`, restoring left out. */
static int32_t run(candidate *c, uint32_t calls, int64_t *ns) {
  const edgec_memory *memory = c->memory;
  void *pointers[EDGEC_MAX_PARAMETERS];
  int64_t start = edgec_now_ns();
  for (uint32_t n = 0; n < calls; n++) {
    for (uint32_t i = 0; i < memory->count; i++)
      pointers[i] = memory->start[i] + c->copy * memory->stride[i];
    if (++c->copy == memory->copies) c->copy = 0;
    if (c->restores) {
      for (uint32_t i = 0; i < memory->count; i++)
        if (c->asked->buffers[i].over >= 0)
          memcpy(pointers[i], memory->start[c->asked->buffers[i].over],
                 c->asked->buffers[i].bytes);
      int64_t before = edgec_now_ns();
      int32_t result = call(c, pointers);
      *ns += edgec_now_ns() - before;
      if (result) return result;
    } else {
      int32_t result = call(c, pointers);
      if (result) return result;
    }
  }
  if (!c->restores) *ns += edgec_now_ns() - start;
  return 0;
}

static int open_pool(edgec_pool *pool, const edgec_trial *trial) {
  uint64_t each = edgec_align(trial->scratch_bytes);
  void *lanes, *scratch;
  memset(pool, 0, sizeof *pool);
  pool->workers = calloc(trial->threads, sizeof *pool->workers);
  if (!pool->workers || posix_memalign(&lanes, 64, trial->threads * sizeof *pool->lanes) ||
      posix_memalign(&scratch, 64, trial->threads * each + 64))
    return 0;
  memset(lanes, 0, trial->threads * sizeof *pool->lanes);
  pool->lanes = lanes;
  pool->lane_count = trial->threads;
  pool->spin_ns = 100000;
  pool->scratch_bytes = each;
  for (uint32_t i = 0; i < trial->threads; i++) {
    pool->lanes[i].pool = pool;
    pool->lanes[i].scratch = (unsigned char *)scratch + i * each;
  }
  edgec_pool_init(pool);
  return 1;
}

/* Runs the candidate as long as asked for; the times go behind `outcome`. */
static void take_times(candidate *c, edgec_outcome *outcome) {
  const edgec_trial *trial = c->asked->trial;
  double *times = (double *)(outcome + 1);
  int64_t first = 0, once = 0;
  outcome->status = EDGEC_RETURNED;
  if ((outcome->code = run(c, 1, &first)) || (outcome->code = run(c, 1, &once))) return;
  if (c->pool.scratch_shortage) {
    outcome->status = EDGEC_SHORT;
    return;
  }
  once = once < 1 ? 1 : once;
  uint64_t calls = (trial->burst_ns + (uint64_t)once - 1) / (uint64_t)once;
  calls = calls < 1 ? 1 : calls > MOST_CALLS ? MOST_CALLS : calls;
  int64_t budget = (int64_t)(trial->burst_ns * trial->bursts), spent = 0;
  int slow = trial->cutoff_ns && (uint64_t)once > trial->cutoff_ns;
  for (uint32_t i = 0; i < trial->bursts; i++) {
    int64_t ns = 0;
    if (i >= LEAST_BURSTS && (spent >= budget || slow)) break;
    if ((outcome->code = run(c, (uint32_t)calls, &ns))) return;
    times[i] = (double)ns / (double)calls;
    spent += ns;
    outcome->bursts = i + 1;
  }
  outcome->calls = (uint32_t)calls;
  outcome->status = EDGEC_MEASURED;
}

void edgec_run_trial(const edgec_request *r, const edgec_memory *memory, edgec_outcome *outcome) {
  const edgec_trial *trial = r->trial;
  candidate c = {r, memory, {0}, NULL, 0, 0};
  struct rlimit none = {0, 0};
  setrlimit(RLIMIT_CORE, &none);
#ifdef __linux__
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (trial->cpu >= 0 && trial->cpu < CPU_SETSIZE) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET((size_t)trial->cpu, &set);
    sched_setaffinity(0, sizeof set, &set);
  }
#endif
  outcome->status = EDGEC_EXHAUSTED;
  unsigned char *image = edgec_image_load(trial, r->fixups, r->image);
  if (!image || !open_pool(&c.pool, trial)) return;
  c.entry = image + trial->entry;
  for (uint32_t i = 0; i < memory->count; i++) {
    if (r->buffers[i].role == EDGEC_RESULT)
      memset(memory->start[i], (int)trial->junk, r->buffers[i].bytes);
    c.restores |= r->buffers[i].over >= 0;
  }
  edgec_pool_enter(&c.pool);
  take_times(&c, outcome);
  unsigned char *output = (unsigned char *)((double *)(outcome + 1) + trial->bursts);
  for (uint32_t i = 0; trial->wants_outputs && i < memory->count; i++) {
    if (r->buffers[i].role != EDGEC_RESULT) continue;
    memcpy(output, memory->start[i], r->buffers[i].bytes);
    output += r->buffers[i].bytes;
  }
}
