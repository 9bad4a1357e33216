/* Exercises the runtime as a C program does: `driver CASE` exits with 0 when the case holds. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fenv.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "edgec.h"

extern const edgec_model *edgec_model_alpha(void);
extern const edgec_model *edgec_model_steps(void);
extern const edgec_model *edgec_model_faults(void);
extern const edgec_model *edgec_model_alien(void);
extern const edgec_model *edgec_model_sift(void);
#ifdef TWO_SCALES
extern const edgec_model *edgec_model_beta(void);
#endif

enum { SIZE = 1024, WEIGHTS = 16 + SIZE };
enum { NOTHING, FAIL, FAIL_IN_TASK, WANT_SCRATCH, SLEEP, ROUNDING, NESTED, MANY_TASKS, STACKED };

#define CHECK(condition)                                                                    \
  do {                                                                                      \
    if (!(condition)) {                                                                     \
      fprintf(stderr, "%s:%d: %s\n", __func__, __LINE__, #condition);                       \
      _exit(1);                                                                             \
    }                                                                                       \
  } while (0)

static float weights[WEIGHTS] __attribute__((aligned(64)));

static edgec_options options_with(uint32_t threads) {
  edgec_options options = edgec_default_options();
  for (int i = 0; i < SIZE; i++) weights[16 + i] = (float)i;
  options.threads = threads;
  options.weights = weights;
  options.weights_size = sizeof weights;
  return options;
}

static edgec_instance *make(const edgec_model *model, uint32_t threads) {
  edgec_options options = options_with(threads);
  edgec_instance *instance;
  CHECK(edgec_create(model, &options, &instance) == EDGEC_OK);
  return instance;
}

static void check_scale(edgec_instance *scale, float factor, float seed) {
  static __thread float x[SIZE], y[SIZE];
  const void *inputs[] = {x};
  void *outputs[] = {y};
  for (int i = 0; i < SIZE; i++) x[i] = seed + (float)i, y[i] = -1;
  CHECK(edgec_run(scale, inputs, outputs, NULL) == EDGEC_OK);
  for (int i = 0; i < SIZE; i++) CHECK(y[i] == x[i] * factor + (float)i);
}

static edgec_status obey(edgec_instance *faults, int mode, float y[8]) {
  float x = (float)mode;
  const void *inputs[] = {&x};
  void *outputs[] = {y};
  return edgec_run(faults, inputs, outputs, NULL);
}

static void facts(void) {
  const edgec_model *model = edgec_model_steps();
  CHECK(model->size == sizeof *model && model->abi_version == EDGEC_ABI_VERSION);
  CHECK(!strcmp(model->name, "steps"));
  CHECK(model->input_count == 2 && model->output_count == 4 && model->state_count == 2);
  edgec_instance *steps = make(model, 3);
  CHECK(steps->model == model);
  CHECK(edgec_thread_count(steps) == 3);
  const edgec_tensor *x = edgec_input(steps, 0), *total = edgec_output(steps, 0);
  CHECK(!strcmp(x->name, "x") && x->dtype == EDGEC_FLOAT32 && x->rank == 2);
  CHECK(x->shape[0] == 4 && x->shape[1] == 16 && x->bytes == 256);
  CHECK(!strcmp(total->name, "total") && total->rank == 1);
  CHECK(!edgec_input(steps, 2) && !edgec_output(steps, 4));
  CHECK(!strcmp(edgec_last_error(steps), ""));
  CHECK(edgec_destroy(steps) == EDGEC_OK);
  CHECK(edgec_destroy(NULL) == EDGEC_OK);
  edgec_instance *automatic = make(model, 0);
  CHECK(edgec_thread_count(automatic) >= 1);
  edgec_destroy(automatic);
}

static void runs(void) {
  for (uint32_t threads = 1; threads <= 5; threads++) {
    edgec_instance *alpha = make(edgec_model_alpha(), threads);
    for (int i = 0; i < 50; i++) check_scale(alpha, 2, (float)i);
    edgec_destroy(alpha);
  }
}

static void two_models(void) {
#ifdef TWO_SCALES
  edgec_instance *alpha = make(edgec_model_alpha(), 2), *beta = make(edgec_model_beta(), 2);
  for (int i = 0; i < 20; i++) {
    check_scale(alpha, 2, 1);
    check_scale(beta, 3, 1);
  }
  edgec_destroy(alpha);
  check_scale(beta, 3, 2);
  edgec_destroy(beta);
#endif
}

static void control_flow(void) {
  edgec_instance *steps = make(edgec_model_steps(), 1);
  float x[4][16], total[16] = {0}, reversed[4][16], twice[16], previous[16];
  int64_t count;
  const unsigned char flags[4] = {0, 1, 0, 1};
  const void *inputs[] = {x, flags};
  void *outputs[] = {total, reversed, twice, &count};
  for (int run = 1; run <= 3; run++) {
    for (int i = 0; i < 64; i++) x[i / 16][i % 16] = (float)(i * run);
    memcpy(previous, total, sizeof total);
    CHECK(edgec_run(steps, inputs, outputs, NULL) == EDGEC_OK);
    for (int c = 0; c < 16; c++) {
      CHECK(total[c] == x[0][c] - x[1][c] + x[2][c] - x[3][c]);
      CHECK(twice[c] == previous[c] + 2 * (x[0][c] + x[1][c] + x[2][c]));
      for (int r = 0; r < 4; r++) CHECK(reversed[r][c] == x[3 - r][c]);
    }
    CHECK(count == run);
  }
  CHECK(edgec_reset(steps) == EDGEC_OK);
  CHECK(edgec_run(steps, inputs, outputs, NULL) == EDGEC_OK && count == 1);
  edgec_destroy(steps);
}

static int refused(edgec_instance *instance, const void *input, void *output, const char *why) {
  const void *inputs[] = {input};
  void *outputs[] = {output};
  return edgec_run(instance, inputs, outputs, NULL) == EDGEC_INVALID &&
         strstr(edgec_last_error(instance), why) != NULL;
}

static void bad_buffers(void) {
  static float x[2 * SIZE], y[SIZE + 1];
  edgec_instance *alpha = make(edgec_model_alpha(), 2);
  CHECK(refused(alpha, NULL, y, "input 'x' is NULL"));
  CHECK(refused(alpha, x, NULL, "output 'y' is NULL"));
  CHECK(refused(alpha, (char *)x + 2, y, "not aligned"));
  CHECK(refused(alpha, x, (char *)y + 1, "not aligned"));
  CHECK(refused(alpha, x, x + SIZE - 1, "output 'y' overlaps input 'x'"));
  CHECK(refused(alpha, x, x, "overlaps"));
  CHECK(edgec_run(alpha, NULL, NULL, NULL) == EDGEC_INVALID);
  const void *inputs[] = {x};
  void *outputs[] = {x + SIZE};
  CHECK(edgec_run(alpha, inputs, outputs, alpha) == EDGEC_INVALID);
  CHECK(strstr(edgec_last_error(alpha), "stream"));
  CHECK(edgec_run(alpha, inputs, outputs, NULL) == EDGEC_OK); /* adjacent is not overlapping */
  CHECK(!strcmp(edgec_last_error(alpha), ""));
  edgec_destroy(alpha);

  edgec_instance *steps = make(edgec_model_steps(), 1);
  const void *both[] = {x, y};
  void *twins[] = {x + 64, x + 128, x + 64, y + 2};
  CHECK(edgec_run(steps, both, twins, NULL) == EDGEC_INVALID);
  CHECK(strstr(edgec_last_error(steps), "output 'twice' overlaps output 'total'"));
  edgec_destroy(steps);
}

static int not_created(const edgec_model *model, const edgec_options *options,
                       edgec_status expected, const char *why) {
  char text[256] = "";
  edgec_options copy = *options;
  edgec_instance *instance = (edgec_instance *)&copy;
  copy.error = text;
  copy.error_size = sizeof text;
  edgec_status status = edgec_create(model, &copy, &instance);
  if (status != expected || !strstr(text, why)) fprintf(stderr, "%d: %s\n", (int)status, text);
  return status == expected && !instance && strstr(text, why);
}

static void bad_options(void) {
  static char arena[65536] __attribute__((aligned(64)));
  const edgec_model *alpha = edgec_model_alpha();
  edgec_options o = edgec_default_options();
  CHECK(not_created(alpha, &o, EDGEC_INVALID, "needs its 4160 bytes of weights"));
  o = options_with(1), o.weights_size--;
  CHECK(not_created(alpha, &o, EDGEC_INVALID, "4159 bytes of weights given"));
  o = options_with(1), o.weights = weights + 1;
  CHECK(not_created(alpha, &o, EDGEC_INVALID, "aligned to 64"));
  o = options_with(1), o.device = 1;
  CHECK(not_created(alpha, &o, EDGEC_UNSUPPORTED, "GPU 1"));
  o = options_with(1), o.arena = arena + 4, o.arena_size = 60000;
  CHECK(not_created(alpha, &o, EDGEC_INVALID, "arena is not aligned"));
  o = options_with(2), o.arena = arena, o.arena_size = edgec_arena_size(alpha, &o) - 1;
  CHECK(not_created(alpha, &o, EDGEC_NO_MEMORY, "are needed with 2 threads"));
  o = edgec_default_options();
  CHECK(not_created(edgec_model_alien(), &o, EDGEC_UNSUPPORTED, "no 'fpu_of_tomorrow'"));

  struct {
    edgec_options known;
    uint64_t unknown;
  } newer = {options_with(1), 0};
  edgec_instance *instance;
  newer.known.size = sizeof newer;
  CHECK(edgec_create(alpha, &newer.known, &instance) == EDGEC_OK);
  edgec_destroy(instance);
  newer.unknown = 1;
  CHECK(edgec_create(alpha, &newer.known, &instance) == EDGEC_INVALID && !instance);
  o = options_with(1), o.size = 0;
  CHECK(edgec_create(alpha, &o, &instance) == EDGEC_INVALID && !instance);
  CHECK(edgec_create(edgec_model_steps(), NULL, &instance) == EDGEC_OK);
  edgec_destroy(instance);
}

static void failures(void) {
  for (uint32_t threads = 1; threads <= 3; threads++) {
    edgec_instance *faults = make(edgec_model_faults(), threads);
    float y[8];
    CHECK(obey(faults, FAIL, y) == EDGEC_FAILED);
    CHECK(strstr(edgec_last_error(faults), "kernel 'obey' (step 0) failed with code -7"));
    CHECK(obey(faults, FAIL_IN_TASK, y) == EDGEC_FAILED);
    CHECK(strstr(edgec_last_error(faults), "code -9"));
    CHECK(obey(faults, WANT_SCRATCH, y) == EDGEC_FAILED);
    CHECK(strstr(edgec_last_error(faults), "872 bytes of scratch memory more than planned"));
    CHECK(obey(faults, NOTHING, y) == EDGEC_OK && !*edgec_last_error(faults));
    CHECK(obey(faults, MANY_TASKS, y) == EDGEC_OK);
    for (int i = 0; i < 8; i++) CHECK(y[i] == 125);
    CHECK(obey(faults, NESTED, y) == EDGEC_OK);
    for (int i = 0; i < 8; i++) CHECK(y[i] == 2);
    CHECK(obey(faults, STACKED, y) == EDGEC_OK && y[0] == 64);
    edgec_destroy(faults);
  }
}

static void own_arena(void) {
  static unsigned char memory[65536] __attribute__((aligned(64)));
  edgec_options options = options_with(3);
  edgec_instance *alpha;
  options.arena = memory + 64;
  options.arena_size = edgec_arena_size(edgec_model_alpha(), &options);
  CHECK(options.arena_size == 8192 + 3 * 4096);
  memset(memory, 0xa5, sizeof memory);
  CHECK(edgec_create(edgec_model_alpha(), &options, &alpha) == EDGEC_OK);
  check_scale(alpha, 2, 5);
  edgec_destroy(alpha);
  for (size_t i = 0; i < 64; i++) CHECK(memory[i] == 0xa5);
  for (size_t i = 64 + options.arena_size; i < sizeof memory; i++) CHECK(memory[i] == 0xa5);
  CHECK(memory[64 + 4096 + 4] != 0xa5); /* and it was used */
}

static void float_environment(void) {
  edgec_instance *faults = make(edgec_model_faults(), 2);
  float y[8];
  fesetround(FE_UPWARD);
  CHECK(obey(faults, ROUNDING, y) == EDGEC_OK);
  CHECK(y[0] == 1 && y[1] == 1);
  CHECK(fegetround() == FE_UPWARD);
  CHECK(obey(faults, FAIL, y) == EDGEC_FAILED && fegetround() == FE_UPWARD);
  edgec_destroy(faults);
}

static void *run_many(void *argument) {
  edgec_instance *alpha = argument;
  for (int i = 0; i < 300; i++) check_scale(alpha, 2, (float)i);
  return NULL;
}

static void two_threads(void) {
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

static void busy(void) {
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
static void lazy_threads(void) {
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

static void forks(void) {
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

static void signals(void) {
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

static void parallel_for(void) {
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
static void idle(void) {
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

static void selftest(void) {
  static struct {
    float x[SIZE], y[SIZE];
  } golden __attribute__((aligned(64)));
  edgec_instance *alpha = make(edgec_model_alpha(), 2);
  for (int i = 0; i < SIZE; i++) golden.x[i] = 1, golden.y[i] = 2 + (float)i;
  CHECK(edgec_selftest(alpha, &golden, sizeof golden) == EDGEC_OK);
  golden.y[1000] *= 1.00005f;
  CHECK(edgec_selftest(alpha, &golden, sizeof golden) == EDGEC_OK);
  golden.y[1000] *= 1.001f;
  CHECK(edgec_selftest(alpha, &golden, sizeof golden) == EDGEC_MISMATCH);
  CHECK(strstr(edgec_last_error(alpha), "output 'y' is 1002 at element 1000, golden is 1003"));
  golden.y[1000] = NAN;
  CHECK(edgec_selftest(alpha, &golden, sizeof golden) == EDGEC_MISMATCH);
  golden.y[1000] = INFINITY;
  CHECK(edgec_selftest(alpha, &golden, sizeof golden) == EDGEC_MISMATCH);
  golden.x[1000] = NAN, golden.y[1000] = -NAN;
  CHECK(edgec_selftest(alpha, &golden, sizeof golden) == EDGEC_OK);
  CHECK(edgec_selftest(alpha, &golden, sizeof golden - 64) == EDGEC_INVALID);
  CHECK(edgec_selftest(alpha, golden.x + 1, sizeof golden) == EDGEC_INVALID);
  edgec_destroy(alpha);
}

/* The self-test starts from a zero state, and leaves one. */
static void selftest_state(void) {
  static struct {
    float x[4][16];
    unsigned char flags[64];
    float total[16], reversed[4][16], twice[16];
    int64_t count[8];
  } golden __attribute__((aligned(64)));
  edgec_instance *steps = make(edgec_model_steps(), 1);
  int64_t count;
  static float total[16], reversed[64], twice[16];
  const void *inputs[] = {golden.x, golden.flags};
  void *outputs[] = {total, reversed, twice, &count};
  golden.count[0] = 1;
  for (int i = 0; i < 3; i++) CHECK(edgec_run(steps, inputs, outputs, NULL) == EDGEC_OK);
  CHECK(count == 3);
  CHECK(edgec_selftest(steps, &golden, sizeof golden) == EDGEC_OK);
  CHECK(edgec_selftest(steps, &golden, sizeof golden - 56) == EDGEC_OK); /* no padding at the end */
  CHECK(edgec_run(steps, inputs, outputs, NULL) == EDGEC_OK && count == 1);
  golden.count[0] = 2;
  CHECK(edgec_selftest(steps, &golden, sizeof golden) == EDGEC_MISMATCH);
  CHECK(strstr(edgec_last_error(steps), "output 'count' is 1 at element 0, golden is 2"));
  edgec_destroy(steps);
}

/* An output whose extent the input decides: asked for after the run, its bound before. */
static void results(void) {
  edgec_instance *sift = make(edgec_model_sift(), 1);
  const edgec_tensor *bound = edgec_output(sift, 0), *kept = edgec_result(sift, 0);
  static float x[2000][3], y[2000][3], sum[3];
  const void *inputs[] = {x};
  void *outputs[] = {y, sum};
  CHECK(bound->bytes == sizeof y && kept->bytes == sizeof y && kept->shape[0] == 2000);
  x[7][0] = x[1999][0] = 1, x[1999][2] = 5;
  CHECK(edgec_run(sift, inputs, outputs, NULL) == EDGEC_OK);
  CHECK(kept->bytes == 2 * sizeof y[0] && kept->shape[0] == 2 && kept->shape[1] == 3);
  CHECK(!strcmp(kept->name, "kept") && y[1][2] == 5 && sum[0] == 2);
  CHECK(bound->bytes == sizeof y && bound->shape[0] == 2000); /* what buffers must hold */
  CHECK(edgec_result(sift, 1)->bytes == sizeof sum && !edgec_result(sift, 2));
  x[0][0] = NAN;
  CHECK(edgec_run(sift, inputs, outputs, NULL) == EDGEC_FAILED && kept->shape[0] == 2);
  memset(x, 0, sizeof x);
  CHECK(edgec_run(sift, inputs, outputs, NULL) == EDGEC_OK);
  CHECK(kept->shape[0] == 0 && kept->bytes == 0);
  edgec_destroy(sift);
}

/* Golden data hold 4093 elements of an input at most, and extents. */
static void selftest_sift(void) {
  enum { HEAD = 4093 };
  static struct {
    float x[4096];
    int64_t kept[8];
    float y[16], sum[16];
  } golden __attribute__((aligned(64)));
  edgec_instance *sift = make(edgec_model_sift(), 1);
  golden.x[3] = 2, golden.x[4] = 3; /* row 1; repeated as elements 4096 and 4097, columns 1 and 2 */
  golden.kept[0] = 1, golden.y[0] = 2, golden.y[1] = 3;
  golden.sum[0] = 2, golden.sum[1] = 3 + 2, golden.sum[2] = 3;
  CHECK(edgec_selftest(sift, &golden, sizeof golden) == EDGEC_OK);
  CHECK(edgec_result(sift, 0)->shape[0] == 2000);
  golden.kept[0] = 0;
  CHECK(edgec_selftest(sift, &golden, sizeof golden) == EDGEC_INVALID); /* no room for y */
  golden.x[3] = 0, golden.kept[0] = 1;
  CHECK(edgec_selftest(sift, &golden, sizeof golden) == EDGEC_MISMATCH);
  CHECK(strstr(edgec_last_error(sift), "output 'kept' has extent 0 on axis 0, golden is 1"));
  CHECK(edgec_selftest(sift, &golden, 64) == EDGEC_INVALID);
  edgec_destroy(sift);
}

/* The time of every step, 0 for those that hold others or are skipped. */
static void profile(void) {
  edgec_instance *steps = make(edgec_model_steps(), 1);
  static float x[4][16], total[16], reversed[64], twice[16];
  static unsigned char flags[4] = {1, 1, 1, 1};
  int64_t count;
  uint64_t times[14];
  const void *inputs[] = {x, flags};
  void *outputs[] = {total, reversed, twice, &count};
  CHECK(edgec_profile(steps, inputs, outputs, times, 14) == EDGEC_OK && count == 1);
  for (int i = 0; i < 14; i++) {
    int silent = i == 1 || i == 2 || i == 4 || i == 7 || i == 8 || i == 11;
    CHECK(silent ? !times[i] : times[i] > 0 && times[i] < 10000000000u);
  }
  CHECK(edgec_profile(steps, inputs, outputs, times, 13) == EDGEC_INVALID);
  CHECK(edgec_profile(steps, inputs, NULL, times, 14) == EDGEC_INVALID);
  times[0] = 0;
  CHECK(edgec_run(steps, inputs, outputs, NULL) == EDGEC_OK && !times[0]);
  edgec_destroy(steps);
}

static const struct {
  const char *name;
  void (*run)(void);
} cases[] = {
  {"facts", facts}, {"runs", runs}, {"two_models", two_models}, {"control_flow", control_flow},
  {"bad_buffers", bad_buffers}, {"bad_options", bad_options}, {"failures", failures},
  {"own_arena", own_arena}, {"float_environment", float_environment},
  {"two_threads", two_threads}, {"busy", busy}, {"lazy_threads", lazy_threads}, {"forks", forks}, {"signals", signals},
  {"parallel_for", parallel_for}, {"idle", idle}, {"selftest", selftest},
  {"selftest_state", selftest_state}, {"results", results}, {"selftest_sift", selftest_sift},
  {"profile", profile},
};

int main(int count, char **words) {
  alarm(60); /* a hang is a failure */
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    if (count == 1) printf("%s\n", cases[i].name);
    if (count == 2 && !strcmp(words[1], cases[i].name)) return cases[i].run(), 0;
  }
  return count != 1;
}
