/* Exercises the runtime as a C program does: `driver CASE` exits with 0 when the case holds. */
#define _GNU_SOURCE
#include <fenv.h>
#include <string.h>

#include "driver.h"

static float weights[WEIGHTS] __attribute__((aligned(64)));

edgec_options options_with(uint32_t threads) {
  edgec_options options = edgec_default_options();
  for (int i = 0; i < SIZE; i++) weights[16 + i] = (float)i;
  options.threads = threads;
  options.weights = weights;
  options.weights_size = sizeof weights;
  return options;
}

edgec_instance *make(const edgec_model *model, uint32_t threads) {
  edgec_options options = options_with(threads);
  edgec_instance *instance;
  CHECK(edgec_create(model, &options, &instance) == EDGEC_OK);
  return instance;
}

void check_scale(edgec_instance *scale, float factor, float seed) {
  static __thread float x[SIZE], y[SIZE];
  const void *inputs[] = {x};
  void *outputs[] = {y};
  for (int i = 0; i < SIZE; i++) x[i] = seed + (float)i, y[i] = -1;
  CHECK(edgec_run(scale, inputs, outputs, NULL) == EDGEC_OK);
  for (int i = 0; i < SIZE; i++) CHECK(y[i] == x[i] * factor + (float)i);
}

edgec_status obey(edgec_instance *faults, int mode, float y[8]) {
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
