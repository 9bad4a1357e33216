/* Threads: the runtime's own, the caller's, forks and signals. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>

#include "driver.h"

static void *run_many(void *argument) {
  edgec_instance *alpha = argument;
  for (int i = 0; i < 300; i++) check_scale(alpha, 2, (float)i);
  return NULL;
}

void two_threads(void) {
  edgec_instance *instances[] = {make(edgec_model_alpha(), 2), make(edgec_model_alpha(), 2)};
  pthread_t threads[2];
  for (int i = 0; i < 2; i++) CHECK(!pthread_create(&threads[i], NULL, run_many, instances[i]));
  for (int i = 0; i < 2; i++) CHECK(!pthread_join(threads[i], NULL));
  for (int i = 0; i < 2; i++) CHECK(edgec_destroy(instances[i]) == EDGEC_OK);
}

static void doze(long milliseconds) {
  struct timespec moment = {milliseconds / 1000, milliseconds % 1000 * 1000000};
  while (nanosleep(&moment, &moment) && errno == EINTR) {}
}

static void *run_slowly(void *argument) {
  edgec_status status;
  float y[8];
  while ((status = obey(argument, SLEEP, y)) == EDGEC_BUSY) doze(1);
  CHECK(status == EDGEC_OK);
  return NULL;
}

/* A thread that is running `faults`, for some time to come. */
static pthread_t start_slow_run(edgec_instance *faults) {
  pthread_t thread;
  CHECK(!pthread_create(&thread, NULL, run_slowly, faults));
  while (edgec_reset(faults) != EDGEC_BUSY) doze(1);
  return thread;
}

void busy(void) {
  edgec_instance *faults = make(edgec_model_faults(), 2);
  pthread_t thread = start_slow_run(faults);
  float y[8];
  CHECK(obey(faults, NOTHING, y) == EDGEC_BUSY);
  CHECK(edgec_reset(faults) == EDGEC_BUSY);
  CHECK(edgec_destroy(faults) == EDGEC_BUSY);
  CHECK(!pthread_join(thread, NULL));
  CHECK(obey(faults, NOTHING, y) == EDGEC_OK);
  CHECK(edgec_destroy(faults) == EDGEC_OK);
}

static int succeeded(pid_t child) {
  int status;
  CHECK(waitpid(child, &status, 0) == child);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/* How many threads this process has. */
static int thread_count(void) {
  int count = 0;
  DIR *tasks = opendir("/proc/self/task");
  CHECK(tasks);
  for (struct dirent *entry; (entry = readdir(tasks)) != NULL;) count += entry->d_name[0] != '.';
  closedir(tasks);
  return count;
}

/* Threads are started by the first parallel step, and are gone when destroy returns. */
void lazy_threads(void) {
  edgec_instance *alpha = make(edgec_model_alpha(), 4);
  int before = thread_count();
  check_scale(alpha, 2, 1);
  CHECK(thread_count() == before + 3);
  check_scale(alpha, 2, 1);
  CHECK(thread_count() == before + 3);
  edgec_destroy(alpha);
  for (int i = 0; i < 100 && thread_count() > before; i++) doze(5); /* /proc lags behind */
  CHECK(thread_count() == before);
}

void forks(void) {
  edgec_instance *alpha = make(edgec_model_alpha(), 3), *faults = make(edgec_model_faults(), 2);
  check_scale(alpha, 2, 1);
  for (int i = 0; i < 5; i++) {
    pid_t child = fork();
    if (!child) {
      for (int j = 0; j < 20; j++) check_scale(alpha, 2, (float)j);
      CHECK(thread_count() == 3);
      CHECK(edgec_destroy(alpha) == EDGEC_OK);
      CHECK(edgec_destroy(faults) == EDGEC_OK);
      _exit(0);
    }
    check_scale(alpha, 2, 3);
    CHECK(succeeded(child));
  }
  pthread_t thread = start_slow_run(faults);
  pid_t child = fork(); /* during a run, whose thread the child does not have */
  if (!child) {
    float y[8];
    CHECK(obey(faults, NOTHING, y) == EDGEC_FORKED);
    CHECK(edgec_destroy(faults) == EDGEC_OK);
    check_scale(alpha, 2, 4);
    _exit(0);
  }
  CHECK(succeeded(child));
  CHECK(!pthread_join(thread, NULL));
  edgec_destroy(faults);
  edgec_destroy(alpha);
}

static pthread_t main_thread;
static volatile sig_atomic_t interrupts, elsewhere;

static void on_interrupt(int signal) {
  (void)signal;
  interrupts++;
  if (!pthread_equal(pthread_self(), main_thread)) elsewhere = 1;
}

void signals(void) {
  struct sigaction action;
  edgec_instance *alpha = make(edgec_model_alpha(), 4);
  memset(&action, 0, sizeof action);
  action.sa_handler = on_interrupt;
  main_thread = pthread_self();
  CHECK(!sigaction(SIGINT, &action, NULL));
  check_scale(alpha, 2, 0);
  pid_t parent = getpid(), child = fork();
  if (!child)
    for (;;) {
      if (getppid() != parent || kill(parent, SIGINT)) _exit(0);
      doze(2);
    }
  while (interrupts < 20) check_scale(alpha, 2, 1);

  sigset_t interrupt; /* which no thread can take now, unless a worker does not block it */
  sigemptyset(&interrupt);
  sigaddset(&interrupt, SIGINT);
  pthread_sigmask(SIG_BLOCK, &interrupt, NULL);
  doze(20);
  check_scale(alpha, 2, 1);
  pthread_sigmask(SIG_UNBLOCK, &interrupt, NULL);
  CHECK(!elsewhere);
  kill(child, SIGKILL);
  while (waitpid(child, NULL, 0) < 0) CHECK(errno == EINTR);
  edgec_destroy(alpha);
}

typedef struct borrowed {
  int calls;
  uint32_t count;
  edgec_instance *other;
} borrowed;

static void backwards(void *context, void (*task)(void *, uint32_t), void *argument,
                      uint32_t count) {
  borrowed *b = context;
  b->calls++;
  b->count = count;
  for (uint32_t i = count; i-- > 0;) task(argument, i);
}

/* Runs another instance of the same model on the way, and a task too many. */
static void distracted(void *context, void (*task)(void *, uint32_t), void *argument,
                       uint32_t count) {
  borrowed *b = context;
  float y[8];
  b->calls++;
  CHECK(obey(b->other, MANY_TASKS, y) == EDGEC_OK);
  task(argument, count);
  for (uint32_t i = 0; i < count; i++) task(argument, i);
}

typedef struct call {
  void (*task)(void *, uint32_t);
  void *argument;
  uint32_t index;
} call;

static void *make_call(void *argument) {
  call *c = argument;
  c->task(c->argument, c->index);
  return NULL;
}

static void in_threads(void *context, void (*task)(void *, uint32_t), void *argument,
                       uint32_t count) {
  pthread_t threads[8];
  call calls[8];
  (void)context;
  for (uint32_t i = 0; i < count; i++) {
    calls[i] = (call){task, argument, i};
    CHECK(!pthread_create(&threads[i], NULL, make_call, &calls[i]));
  }
  for (uint32_t i = 0; i < count; i++) CHECK(!pthread_join(threads[i], NULL));
}

void parallel_for(void) {
  borrowed b = {0, 0, make(edgec_model_faults(), 1)};
  edgec_options options = options_with(4);
  edgec_instance *alpha, *faults;
  options.parallel_for = backwards;
  options.parallel_for_context = &b;
  CHECK(edgec_create(edgec_model_alpha(), &options, &alpha) == EDGEC_OK);
  for (int i = 0; i < 10; i++) check_scale(alpha, 2, (float)i);
  CHECK(b.calls == 10 && b.count == 4);
  edgec_destroy(alpha);

  float y[8];
  b.calls = 0;
  options.parallel_for = distracted;
  CHECK(edgec_create(edgec_model_faults(), &options, &faults) == EDGEC_OK);
  CHECK(obey(faults, STACKED, y) == EDGEC_OK && y[0] == 64);
  CHECK(b.calls == 2);
  CHECK(edgec_create(edgec_model_alpha(), &options, &alpha) == EDGEC_OK);
  check_scale(alpha, 2, 1);
  edgec_destroy(alpha);
  edgec_destroy(faults);
  edgec_destroy(b.other);

  options.parallel_for = in_threads;
  CHECK(edgec_create(edgec_model_alpha(), &options, &alpha) == EDGEC_OK);
  for (int i = 0; i < 20; i++) check_scale(alpha, 2, (float)i);
  edgec_destroy(alpha);
}

/* Idle workers sleep, and wake up again; so do those that never spin. */
void idle(void) {
  for (int spin = -1; spin <= 0; spin++) {
    edgec_options options = options_with(4);
    edgec_instance *alpha;
    struct timespec before, after;
    options.spin_us = spin;
    CHECK(edgec_create(edgec_model_alpha(), &options, &alpha) == EDGEC_OK);
    check_scale(alpha, 2, 1);
    doze(20);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &before);
    doze(200);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &after);
    double used = (double)(after.tv_sec - before.tv_sec) * 1e3 +
                  (double)(after.tv_nsec - before.tv_nsec) * 1e-6;
    CHECK(used < 20);
    for (int i = 0; i < 20; i++) check_scale(alpha, 2, 2), doze(1);
    edgec_destroy(alpha);
  }
}
