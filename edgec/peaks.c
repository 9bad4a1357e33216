/* SPDX-License-Identifier: Apache-2.0 */
/* What a machine can do at most with THREADS threads.

       peaks THREADS BYTES

   prints `fma RATE`, in multiply-accumulates of floats a second, and `data FOOTPRINT RATE`, in
   bytes a second, for footprints up to BYTES: a rate belongs to data of which so many bytes are
   gone through before any is used again. It is the faster of reading and copying.

   Built with VECTOR_BYTES, the width of the vector registers. */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

typedef float vector __attribute__((vector_size(VECTOR_BYTES)));
/* Compilers otherwise keep from the widest registers of some processors. */
#define WIDE __attribute__((min_vector_width(8 * VECTOR_BYTES)))

enum {
  CHAINS = 12, /* enough to hide the latency of two units, and few enough for 16 registers */
  STREAMS = 8,
  LEAST_FOOTPRINT = 32 << 10,
  TRIALS = 6,
  MOST_THREADS = 256,
};
static const double TRIAL_S = 2e-3;

typedef void work(unsigned thread, uint64_t rounds);

static unsigned threads;
static char *memory;
static uint64_t slice; /* bytes of the memory that one thread goes through */
static volatile float sink;
static volatile float half = 0.5f;

static work *job;
static uint64_t job_rounds;
static unsigned arrived, turn;

static double seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void meet(void) {
  unsigned now = __atomic_load_n(&turn, __ATOMIC_ACQUIRE);
  if (__atomic_add_fetch(&arrived, 1, __ATOMIC_ACQ_REL) == threads) {
    __atomic_store_n(&arrived, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&turn, now + 1, __ATOMIC_RELEASE);
  } else {
    while (__atomic_load_n(&turn, __ATOMIC_ACQUIRE) == now) sched_yield();
  }
}

static void *help(void *number) {
  for (;;) {
    meet();
    if (!job) return NULL;
    job((unsigned)(uintptr_t)number, job_rounds);
    meet();
  }
}

static double timed(work *what, uint64_t rounds) {
  job = what;
  job_rounds = rounds;
  meet();
  double start = seconds();
  what(0, rounds);
  meet();
  return seconds() - start;
}

/* Rounds a second, of the fastest trial; one that takes long is made once again at most. */
static double rate(work *what) {
  uint64_t rounds = 1;
  double took = timed(what, rounds);
  for (; took < TRIAL_S; took = timed(what, rounds)) rounds *= 2;
  double left = TRIALS * TRIAL_S;
  do {
    double again = timed(what, rounds);
    left -= again;
    if (again < took) took = again;
  } while (left > 0);
  return (double)rounds / took;
}

WIDE static void multiply_add(unsigned thread, uint64_t rounds) {
  vector factor = {0}, term = {0}, sums[CHAINS];
  factor += half;
  term += half;
  for (int chain = 0; chain < CHAINS; chain++) sums[chain] = term * (float)chain;
  for (uint64_t round = 0; round < rounds; round++)
#pragma clang loop unroll(full)
    for (int chain = 0; chain < CHAINS; chain++) sums[chain] = sums[chain] * factor + term;
  for (int chain = 1; chain < CHAINS; chain++) sums[0] += sums[chain];
  sink = sums[0][0];
  (void)thread;
}

WIDE static void read_all(unsigned thread, uint64_t rounds) {
  const vector *data = (const vector *)(memory + thread * slice);
  uint64_t count = slice / sizeof(vector);
  vector sums[STREAMS] = {{0}};
  for (uint64_t round = 0; round < rounds; round++) {
    for (uint64_t i = 0; i < count; i += STREAMS)
#pragma clang loop unroll(full)
      for (int stream = 0; stream < STREAMS; stream++) sums[stream] += data[i + stream];
    __asm__ volatile("" ::: "memory");
  }
  for (int stream = 1; stream < STREAMS; stream++) sums[0] += sums[stream];
  sink = sums[0][0];
}

WIDE static void copy_half(unsigned thread, uint64_t rounds) {
  const vector *source = (const vector *)(memory + thread * slice);
  uint64_t count = slice / sizeof(vector) / 2;
  vector *target = (vector *)source + count;
  for (uint64_t round = 0; round < rounds; round++) {
    for (uint64_t i = 0; i < count; i += STREAMS)
#pragma clang loop unroll(full)
      for (int stream = 0; stream < STREAMS; stream++) target[i + stream] = source[i + stream];
    __asm__ volatile("" ::: "memory");
  }
}

static void touch(unsigned thread, uint64_t rounds) {
  memset(memory + thread * slice, (int)rounds - 1, slice);
}

int main(int count, char **words) {
  threads = count == 3 ? (unsigned)atoi(words[1]) : 0;
  uint64_t most = count == 3 ? strtoull(words[2], NULL, 10) : 0;
  if (threads < 1 || threads > MOST_THREADS || most < LEAST_FOOTPRINT) return 2;
  memory = mmap(NULL, most, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return 1;
  madvise(memory, most, MADV_HUGEPAGE);
  pthread_t helpers[MOST_THREADS];
  for (unsigned i = 1; i < threads; i++)
    if (pthread_create(&helpers[i], NULL, help, (void *)(uintptr_t)i)) return 1;

  uint64_t grain = 2 * STREAMS * sizeof(vector); /* a copy goes through two halves */
  slice = most / threads / grain * grain;
  timed(touch, 1);
  printf("fma %.6e\n", rate(multiply_add) * threads * CHAINS * (VECTOR_BYTES / sizeof(float)));
  for (uint64_t footprint = LEAST_FOOTPRINT;; footprint *= 2) {
    if (footprint > most / 4 * 3) footprint = most;
    slice = footprint / threads / grain * grain;
    double reading = rate(read_all), copying = rate(copy_half);
    printf("data %llu %.6e\n", (unsigned long long)footprint,
           (reading > copying ? reading : copying) * (double)(slice * threads));
    if (footprint == most) break;
  }
  job = NULL;
  meet();
  for (unsigned i = 1; i < threads; i++) pthread_join(helpers[i], NULL);
  return 0;
}
