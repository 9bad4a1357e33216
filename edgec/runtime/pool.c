/* SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception */
/*
 * Parallel steps: a pool of threads per instance, and the callbacks through which kernels use it.
 *
 * Task i of a job belongs to lane i modulo the number of lanes, so that a thread meets the same
 * part of the data step after step. A lane that has finished its own tasks takes those that others
 * have not begun: a worker that sleeps or is preempted delays nobody, and any number of workers
 * will do. A lane's tasks are claimed by counting them down. Whoever claims one has seen the job it
 * belongs to, for the job is written before the count: a worker that comes late takes part in the
 * next job.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <time.h>

#include "rounding.h"
#include "runtime.h"

static __thread edgec_lane *current_lane;

static void pause_briefly(void) {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__) || defined(__arm__)
  __asm__ volatile("yield");
#endif
}

int64_t edgec_now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* Spins while *word == value, for spin_ns at most. */
static void spin(const uint32_t *word, uint32_t value, int64_t spin_ns) {
  int64_t deadline = 0;
  if (spin_ns <= 0) return;
  for (uint32_t turn = 1; __atomic_load_n(word, __ATOMIC_ACQUIRE) == value; turn++) {
    pause_briefly();
    if (turn % 32) continue;
    int64_t now = edgec_now_ns();
    if (!deadline) deadline = now + spin_ns;
    if (now >= deadline) return;
  }
}

static void run_task(edgec_pool *pool, int32_t task) {
  edgec_group group = {NULL, pool->task_count};
  int result = pool->task(task, &group, pool->closure);
  int none = 0;
  if (result)
    __atomic_compare_exchange_n(&pool->failure, &none, result, 0, __ATOMIC_RELAXED,
                                __ATOMIC_RELAXED);
  if (__atomic_sub_fetch(&pool->unfinished, 1, __ATOMIC_SEQ_CST) == 0 &&
      __atomic_load_n(&pool->finisher, __ATOMIC_SEQ_CST)) {
    pthread_mutex_lock(&pool->mutex);
    pthread_cond_signal(&pool->finished);
    pthread_mutex_unlock(&pool->mutex);
  }
}

/* Runs the tasks of one lane, then whatever the other lanes have not begun. */
static void work(edgec_pool *pool, uint32_t lane) {
  for (uint32_t k = 0; k < pool->lane_count; k++) {
    uint32_t owner = (lane + k) % pool->lane_count;
    uint32_t *unclaimed = &pool->lanes[owner].unclaimed;
    uint32_t left = __atomic_load_n(unclaimed, __ATOMIC_ACQUIRE);
    while (left) {
      if (__atomic_compare_exchange_n(unclaimed, &left, left - 1, 0, __ATOMIC_ACQ_REL,
                                      __ATOMIC_ACQUIRE)) {
        run_task(pool, (int32_t)(owner + (left - 1) * pool->lane_count));
        left = __atomic_load_n(unclaimed, __ATOMIC_ACQUIRE);
      }
    }
  }
}

static void *worker(void *argument) {
  edgec_lane *lane = argument;
  edgec_pool *pool = lane->pool;
  uint32_t index = (uint32_t)(lane - pool->lanes), seen = lane->seen;
  current_lane = lane;
  for (;;) {
    spin(&pool->generation, seen, pool->spin_ns);
    if (__atomic_load_n(&pool->generation, __ATOMIC_SEQ_CST) == seen) {
      pthread_mutex_lock(&pool->mutex);
      __atomic_add_fetch(&pool->sleepers, 1, __ATOMIC_SEQ_CST);
      while (__atomic_load_n(&pool->generation, __ATOMIC_SEQ_CST) == seen)
        pthread_cond_wait(&pool->wake, &pool->mutex);
      __atomic_sub_fetch(&pool->sleepers, 1, __ATOMIC_SEQ_CST);
      pthread_mutex_unlock(&pool->mutex);
    }
    seen = __atomic_load_n(&pool->generation, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&pool->stop, __ATOMIC_ACQUIRE)) return NULL;
    work(pool, index);
  }
}

/* Starts the next generation, and wakes whoever sleeps. */
static void advance(edgec_pool *pool) {
  __atomic_add_fetch(&pool->generation, 1, __ATOMIC_SEQ_CST);
  if (__atomic_load_n(&pool->sleepers, __ATOMIC_SEQ_CST)) {
    pthread_mutex_lock(&pool->mutex);
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->mutex);
  }
}

/* Workers inherit the floating-point environment that run has set. One that cannot be started is
 * done without. */
static void start_workers(edgec_pool *pool) {
  enum { STACK_BYTES = 512 * 1024 };
  sigset_t all, before;
  pthread_attr_t attributes;
  pool->started = 1;
  if (pthread_attr_init(&attributes)) return;
  pthread_attr_setstacksize(&attributes, STACK_BYTES);
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  while (pool->worker_count + 1 < pool->lane_count) {
    edgec_lane *lane = &pool->lanes[pool->worker_count + 1];
    lane->seen = pool->generation;
    if (pthread_create(&pool->workers[pool->worker_count], &attributes, worker, lane)) break;
    pool->worker_count++;
  }
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  pthread_attr_destroy(&attributes);
}

/* One lane's share of a job, on a thread of the caller's. */
static void borrowed_lane(void *argument, uint32_t index) {
  edgec_pool *pool = argument;
  edgec_lane *previous = current_lane;
  if (index >= pool->lane_count) return;
  edgec_rounding before = edgec_round_to_nearest();
  current_lane = &pool->lanes[index];
  work(pool, index);
  current_lane = previous;
  edgec_round_as_before(&before);
}

static void wait_until_finished(edgec_pool *pool) {
  int64_t deadline = pool->spin_ns > 0 ? edgec_now_ns() + pool->spin_ns : 0;
  while (__atomic_load_n(&pool->unfinished, __ATOMIC_ACQUIRE)) {
    if (edgec_now_ns() < deadline) {
      pause_briefly();
      continue;
    }
    pthread_mutex_lock(&pool->mutex);
    __atomic_store_n(&pool->finisher, 1, __ATOMIC_SEQ_CST);
    while (__atomic_load_n(&pool->unfinished, __ATOMIC_SEQ_CST))
      pthread_cond_wait(&pool->finished, &pool->mutex);
    __atomic_store_n(&pool->finisher, 0, __ATOMIC_SEQ_CST);
    pthread_mutex_unlock(&pool->mutex);
  }
}

static int run_here(edgec_task task, void *closure, int count) {
  edgec_group group = {NULL, count};
  int result = 0;
  for (int i = 0; i < count && !result; i++) result = task(i, &group, closure);
  return result;
}

static int parallel_launch(edgec_task task, void *closure, int task_count) {
  edgec_pool *pool = current_lane->pool;
  uint32_t lanes = pool->lane_count, count = task_count > 0 ? (uint32_t)task_count : lanes;
  if (pool->in_job || lanes == 1 || count == 1) return run_here(task, closure, (int)count);

  if (!pool->started && !pool->parallel_for) start_workers(pool);
  pool->task = task;
  pool->closure = closure;
  pool->task_count = (int32_t)count;
  pool->in_job = 1;
  __atomic_store_n(&pool->failure, 0, __ATOMIC_RELAXED);
  __atomic_store_n(&pool->unfinished, count, __ATOMIC_RELAXED);
  for (uint32_t i = 0; i < lanes; i++) {
    uint32_t mine = i < count ? (count - i - 1) / lanes + 1 : 0;
    __atomic_store_n(&pool->lanes[i].unclaimed, mine, __ATOMIC_RELEASE);
  }
  advance(pool);
  if (pool->parallel_for)
    pool->parallel_for(pool->parallel_for_context, borrowed_lane, pool, lanes);
  work(pool, 0);
  wait_until_finished(pool);
  pool->in_job = 0;
  return __atomic_load_n(&pool->failure, __ATOMIC_RELAXED);
}

/* Workspaces nest, so each lane's scratch memory is a stack. */
static void *alloc_workspace(int device_type, int device, uint64_t bytes, int code, int bits) {
  edgec_lane *lane = current_lane;
  uint64_t left = lane->pool->scratch_bytes - lane->scratch_used;
  (void)device_type, (void)device, (void)code, (void)bits;
  if (bytes > left) {
    __atomic_store_n(&lane->pool->scratch_shortage, bytes - left, __ATOMIC_RELAXED);
    return NULL;
  }
  void *workspace = lane->scratch + lane->scratch_used;
  lane->scratch_used += edgec_align(bytes);
  return workspace;
}

static int free_workspace(int device_type, int device, void *workspace) {
  edgec_lane *lane = current_lane;
  (void)device_type, (void)device;
  lane->scratch_used = (uint64_t)((unsigned char *)workspace - lane->scratch);
  return 0;
}

/* Kernel objects hold weak definitions of these, which the linker replaces by ours. */
EDGEC_HIDDEN int (*__TVMBackendParallelLaunch)(edgec_task, void *, int) = parallel_launch;
EDGEC_HIDDEN void *(*__TVMBackendAllocWorkspace)(int, int, uint64_t, int, int) = alloc_workspace;
EDGEC_HIDDEN int (*__TVMBackendFreeWorkspace)(int, int, void *) = free_workspace;

void edgec_pool_init(edgec_pool *pool) {
  pthread_mutex_init(&pool->mutex, NULL);
  pthread_cond_init(&pool->wake, NULL);
  pthread_cond_init(&pool->finished, NULL);
  pool->started = 0;
  pool->worker_count = 0;
  pool->sleepers = 0;
}

void edgec_pool_join(edgec_pool *pool) {
  __atomic_store_n(&pool->stop, 1, __ATOMIC_RELEASE);
  advance(pool);
  for (uint32_t i = 0; i < pool->worker_count; i++) pthread_join(pool->workers[i], NULL);
  pthread_cond_destroy(&pool->finished);
  pthread_cond_destroy(&pool->wake);
  pthread_mutex_destroy(&pool->mutex);
}

edgec_lane *edgec_pool_enter(edgec_pool *pool) {
  edgec_lane *previous = current_lane;
  for (uint32_t i = 0; i < pool->lane_count; i++) pool->lanes[i].scratch_used = 0;
  current_lane = &pool->lanes[0];
  return previous;
}

void edgec_pool_leave(edgec_lane *previous) { current_lane = previous; }
