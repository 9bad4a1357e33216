/* SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception */
/*
 * edgec-run: one model as an executable. The code is inside; weights and golden data are taken from
 * the artifact beside it, where they are found by their SHA-256.
 *
 * Built with EDGEC_ENTRY, the model's entry function, and EDGEC_GOLDEN_SHA256, a string, which is
 * empty when there are no golden data.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "edgec.h"
#include "npy.h"
#include "zip.h"

extern const edgec_model *EDGEC_ENTRY(void);

enum { USAGE = 2, VERIFY = 7, ARTIFACT = 9, DEVICE = 10, DATA = 12, ALIGNMENT = 64 };

static const char usage[] =
  "usage: edgec-run MODEL.edgec [--run | --bench N | --selftest | --pipe]\n"
  "                 [--input NAME=FILE|random|zeros]... [--output DIR]\n"
  "                 [--threads N] [--spin-us N]\n"
  "  --run       run once and print the outputs (the default)\n"
  "  --bench N   run N times and print the latency in microseconds\n"
  "  --selftest  run the golden inputs and compare with the golden outputs\n"
  "  --pipe      run on each sample on standard input, all inputs' bytes one after the other; write\n"
  "              of each output: rank, extents and size as 64-bit integers, then its bytes\n"
  "  --input     a .npy file, or how to fill the input; the default is random\n"
  "  --output    write every output to DIR as a .npy file\n"
  "  --threads   0 means as many as the process may use\n"
  "  --spin-us   microseconds that idle threads spin before they sleep; 100 by default\n";

typedef struct arguments {
  const char *artifact, *output;
  char **inputs;
  int input_count, selftest, pipe;
  long bench, threads;
  int32_t spin_us; /* as in edgec_options */
} arguments;

static void die(int code, const char *what, const char *why) {
  fprintf(stderr, "edgec-run: %s%s%s\n", what, *why ? ": " : "", why);
  exit(code);
}

static long number(const char *text, const char *option) {
  char *end;
  errno = 0;
  long value = strtol(text, &end, 10);
  if (errno || *end || end == text || value < 0 || value > INT_MAX)
    die(USAGE, option, "wants a number");
  return value;
}

static arguments parse(int count, char **words) {
  arguments a = {0};
  a.inputs = calloc((size_t)count, sizeof *a.inputs);
  if (!a.inputs) die(DEVICE, "out of memory", "");
  for (int i = 1; i < count; i++) {
    const char *word = words[i], *value = i + 1 < count ? words[i + 1] : NULL;
    if (!strcmp(word, "--help")) {
      fputs(usage, stdout);
      exit(0);
    }
    if (!strcmp(word, "--run")) continue;
    if (!strcmp(word, "--selftest")) {
      a.selftest = 1;
      continue;
    }
    if (!strcmp(word, "--pipe")) {
      a.pipe = 1;
      continue;
    }
    if (strncmp(word, "--", 2)) {
      if (a.artifact) die(USAGE, word, "only one artifact is run");
      a.artifact = word;
      continue;
    }
    if (!value) die(USAGE, word, "unknown, or its value is missing");
    i++;
    if (!strcmp(word, "--bench"))
      a.bench = number(value, word);
    else if (!strcmp(word, "--threads"))
      a.threads = number(value, word);
    else if (!strcmp(word, "--spin-us"))
      a.spin_us = number(value, word) ? (int32_t)number(value, word) : -1;
    else if (!strcmp(word, "--output"))
      a.output = value;
    else if (!strcmp(word, "--input"))
      a.inputs[a.input_count++] = words[i];
    else
      die(USAGE, word, "unknown option");
  }
  if (!a.artifact) {
    fputs(usage, stderr);
    exit(USAGE);
  }
  return a;
}

static edgec_span map_file(const char *path) {
  struct stat facts;
  int file = open(path, O_RDONLY | O_CLOEXEC);
  edgec_span span = {NULL, 0};
  if (file < 0 || fstat(file, &facts)) die(ARTIFACT, path, strerror(errno));
  if (!S_ISREG(facts.st_mode) || facts.st_size == 0) die(ARTIFACT, path, "not an artifact");
  span.size = (size_t)facts.st_size;
  span.data = mmap(NULL, span.size, PROT_READ, MAP_SHARED, file, 0);
  if (span.data == MAP_FAILED) die(ARTIFACT, path, strerror(errno));
  close(file);
  return span;
}

static edgec_span member(const char *path, edgec_span file, const char *sha256, const char *what) {
  edgec_span span;
  int found = edgec_zip_find(file, sha256, &span);
  if (found < 0) die(ARTIFACT, path, "not an artifact, or a damaged one");
  if (!found) {
    fprintf(stderr, "edgec-run: %s: it does not hold the %s of this program, or they are damaged\n",
            path, what);
    exit(ARTIFACT);
  }
  return span;
}

static void *allocate(uint64_t bytes) {
  void *memory;
  if (posix_memalign(&memory, ALIGNMENT, bytes + 1)) die(DEVICE, "out of memory", "");
  return memory;
}

static uint64_t next_random(void) { /* xorshift64* (Vigna, 2016) */
  static uint64_t state = 0x9e3779b97f4a7c15u;
  state ^= state >> 12, state ^= state << 25, state ^= state >> 27;
  return state * 0x2545f4914f6cdd1du;
}

/* Floats uniform in [0, 1), integers and bools 0 or 1, other types zero. */
static void fill_random(const edgec_tensor *tensor, void *data) {
  unsigned char *bytes = data;
  uint64_t element = 0, count = tensor->bytes;
  memset(data, 0, tensor->bytes);
  switch (tensor->dtype) {
    case EDGEC_FLOAT32:
      for (uint64_t i = 0; i < tensor->bytes / sizeof(float); i++)
        ((float *)data)[i] = (float)(next_random() >> 40) * 0x1p-24f;
      return;
    case EDGEC_FLOAT64:
      for (uint64_t i = 0; i < tensor->bytes / sizeof(double); i++)
        ((double *)data)[i] = (double)(next_random() >> 11) * 0x1p-53;
      return;
    case EDGEC_INT8: case EDGEC_UINT8: case EDGEC_BOOL: element = 1; break;
    case EDGEC_INT16: case EDGEC_UINT16: element = 2; break;
    case EDGEC_INT32: case EDGEC_UINT32: element = 4; break;
    case EDGEC_INT64: case EDGEC_UINT64: element = 8; break;
    default: return;
  }
  for (uint64_t i = 0; i < count; i += element) bytes[i] = next_random() >> 63;
}

static void read_input(const arguments *a, const edgec_tensor *tensor, void *data) {
  size_t length = strlen(tensor->name);
  const char *from = "random";
  for (int i = 0; i < a->input_count; i++)
    if (!strncmp(a->inputs[i], tensor->name, length) && a->inputs[i][length] == '=')
      from = a->inputs[i] + length + 1;
  if (!strcmp(from, "zeros")) {
    memset(data, 0, tensor->bytes);
  } else if (!strcmp(from, "random")) {
    fill_random(tensor, data);
  } else {
    const char *wrong = edgec_npy_read(from, tensor, data);
    if (wrong) die(DATA, from, wrong);
  }
}

static void check_input_names(const arguments *a, const edgec_instance *instance) {
  for (int i = 0; i < a->input_count; i++) {
    int known = 0;
    const edgec_tensor *tensor;
    for (uint32_t j = 0; (tensor = edgec_input(instance, j)) != NULL; j++) {
      size_t length = strlen(tensor->name);
      known |= !strncmp(a->inputs[i], tensor->name, length) && a->inputs[i][length] == '=';
    }
    if (!known) die(DATA, a->inputs[i], "the model has no such input");
  }
}

static void print_tensor(const edgec_tensor *tensor, const void *data) {
  printf("%-24s %s (", tensor->name, edgec_npy_dtype(tensor->dtype) + 1);
  for (uint32_t i = 0; i < tensor->rank; i++)
    printf("%s%lld", i ? ", " : "", (long long)tensor->shape[i]);
  printf(")");
  if (tensor->dtype == EDGEC_FLOAT32 && tensor->bytes) {
    const float *values = data;
    uint64_t count = tensor->bytes / sizeof(float), best = 0;
    double sum = 0;
    for (uint64_t i = 0; i < count; i++) {
      sum += values[i];
      if (values[i] > values[best]) best = i;
    }
    printf("  mean %.6g, max %.6g at %llu", sum / (double)count, (double)values[best],
           (unsigned long long)best);
  }
  printf("\n");
}

/* Writes outputs under their names, of which only harmless characters are kept. */
static void write_output(const char *folder, uint32_t index, const edgec_tensor *tensor,
                         const void *data) {
  char path[PATH_MAX], name[128];
  size_t length = 0;
  for (const char *c = tensor->name; *c && length < sizeof name - 1; c++) {
    int plain = (*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') || (*c >= '0' && *c <= '9');
    name[length++] = plain || *c == '-' || *c == '_' ? *c : '_';
  }
  name[length] = 0;
  if (snprintf(path, sizeof path, "%s/%u-%s.npy", folder, index, name) >= (int)sizeof path)
    die(DATA, folder, "the path is too long");
  const char *wrong = edgec_npy_write(path, tensor, data);
  if (wrong) die(DATA, path, wrong);
}

static double now_us(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec * 1e6 + (double)now.tv_nsec * 1e-3;
}

static int ascending(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static void run_once(edgec_instance *instance, const void *const *inputs, void *const *outputs) {
  if (edgec_run(instance, inputs, outputs, NULL)) die(DEVICE, edgec_last_error(instance), "");
}

static void bench(edgec_instance *instance, const void *const *inputs, void *const *outputs,
                  long runs) {
  double *times = allocate((uint64_t)runs * sizeof *times);
  for (long i = 0; i < runs / 10 + 1; i++) run_once(instance, inputs, outputs);
  for (long i = 0; i < runs; i++) {
    double start = now_us();
    run_once(instance, inputs, outputs);
    times[i] = now_us() - start;
  }
  qsort(times, (size_t)runs, sizeof *times, ascending);
  printf("%ld runs, %u threads: median %.1f us, min %.1f us, p90 %.1f us, max %.1f us\n", runs,
         edgec_thread_count(instance), times[runs / 2], times[0], times[runs * 9 / 10],
         times[runs - 1]);
  free(times);
}

static void put(const void *data, size_t size) {
  if (fwrite(data, 1, size, stdout) != size) die(DEVICE, "standard output", strerror(errno));
}

/* Runs once on the sample that follows on standard input; 0 where none does. */
static int run_piped(edgec_instance *instance, void **inputs, void *const *outputs) {
  const edgec_tensor *tensor;
  for (uint32_t i = 0; (tensor = edgec_input(instance, i)) != NULL; i++) {
    size_t got = fread(inputs[i], 1, tensor->bytes, stdin);
    if (!got && !i && tensor->bytes) return 0;
    if (got != tensor->bytes) die(DATA, tensor->name, "standard input ends within it");
  }
  run_once(instance, (const void *const *)inputs, outputs);
  for (uint32_t i = 0; (tensor = edgec_result(instance, i)) != NULL; i++) {
    int64_t rank = tensor->rank, bytes = (int64_t)tensor->bytes;
    put(&rank, sizeof rank);
    put(tensor->shape, tensor->rank * sizeof *tensor->shape);
    put(&bytes, sizeof bytes);
    put(outputs[i], tensor->bytes);
  }
  return 1;
}

int main(int count, char **words) {
  arguments a = parse(count, words);
  const edgec_model *model = EDGEC_ENTRY();
  edgec_span file = map_file(a.artifact), weights = {NULL, 0};
  if (model->weights_bytes)
    weights = member(a.artifact, file, model->weights_sha256, "weights");

  char why[256] = "";
  edgec_options options = edgec_default_options();
  options.threads = (uint32_t)a.threads;
  options.spin_us = a.spin_us;
  options.weights = weights.data;
  options.weights_size = weights.size;
  options.error = why;
  options.error_size = sizeof why;
  edgec_instance *instance;
  edgec_status created = edgec_create(model, &options, &instance);
  if (created) die(created == EDGEC_UNSUPPORTED ? ARTIFACT : DEVICE, why, "");

  if (a.selftest) {
    if (!*EDGEC_GOLDEN_SHA256) die(ARTIFACT, "this program was built without golden data", "");
    edgec_span golden = member(a.artifact, file, EDGEC_GOLDEN_SHA256, "golden data");
    edgec_status status = edgec_selftest(instance, golden.data, golden.size);
    if (status) die(status == EDGEC_MISMATCH ? VERIFY : DEVICE, edgec_last_error(instance), "");
    printf("self-test passed\n");
    edgec_destroy(instance);
    return 0;
  }

  check_input_names(&a, instance);
  void **inputs = allocate(model->input_count * sizeof *inputs);
  void **outputs = allocate(model->output_count * sizeof *outputs);
  for (uint32_t i = 0; i < model->input_count; i++) {
    const edgec_tensor *tensor = edgec_input(instance, i);
    void *data = allocate(tensor->bytes);
    if (!a.pipe) read_input(&a, tensor, data);
    inputs[i] = data;
  }
  for (uint32_t i = 0; i < model->output_count; i++)
    outputs[i] = allocate(edgec_output(instance, i)->bytes);

  const void *const *given = (const void *const *)inputs;
  if (a.pipe) {
    while (model->input_count && run_piped(instance, inputs, outputs)) continue;
    edgec_destroy(instance);
    return fflush(stdout) ? DEVICE : 0;
  }
  if (a.bench)
    bench(instance, given, outputs, a.bench);
  else
    run_once(instance, given, outputs);
  for (uint32_t i = 0; i < model->output_count; i++) {
    if (!a.bench) print_tensor(edgec_result(instance, i), outputs[i]);
    if (a.output) write_output(a.output, i, edgec_result(instance, i), outputs[i]);
  }
  edgec_destroy(instance);
  return 0;
}
