/* SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception */
/*
 * What the compiler writes down about a model: the tables that the runtime executes.
 *
 * The compiler generates one C file per model, shaped like this (for y = state = relu(x + state)):
 *
 *     #include "program.h"
 *     extern int32_t k0(void *, void *, void *);
 *     static int32_t s0(void *const *a) { return k0(a[0], a[1], a[2]); }
 *     static const edgec_kernel kernels[] = {{s0, "add_relu"}};
 *     static const int64_t shape0[] = {1, 16};
 *     static const edgec_tensor inputs[] = {{"x", shape0, 2, EDGEC_FLOAT32, 64}};
 *     static const edgec_tensor outputs[] = {{"y", shape0, 2, EDGEC_FLOAT32, 64}};
 *     static const edgec_tolerance tolerances[] = {{1e-4, 1e-5}};
 *     static const edgec_arg args[] = {
 *       {EDGEC_INPUT, 0, 0, 0}, {EDGEC_STATE, 0, 0, 0}, {EDGEC_OUTPUT, 0, 0, 0},
 *     };
 *     static const edgec_step steps[] = {{EDGEC_CALL, 0, 0, 3}};
 *     static const edgec_state states[] = {{64, {EDGEC_OUTPUT, 0, 0, 0}}};
 *     static const edgec_program program = {
 *       .model = EDGEC_MODEL("accumulate", "avx2 fma", "", 0, 1, 1, 1),
 *       .inputs = inputs, .outputs = outputs, .tolerances = tolerances, .states = states,
 *       .kernels = kernels, .args = args, .arg_count = 3, .steps = steps, .step_count = 1,
 *       .weights = EDGEC_WEIGHTS, .arena_bytes = 0, .scratch_bytes = 0,
 *     };
 *     EDGEC_EXPORT_MODEL(accumulate, program)
 *
 * A table without entries is NULL with count 0 (C has no empty arrays). All of it is constant.
 */
#ifndef EDGEC_PROGRAM_H
#define EDGEC_PROGRAM_H

#include "edgec.h"

/* Where an argument lives. `index` selects among inputs, outputs or states and is 0 otherwise. */
enum {
  EDGEC_ARENA = 0,
  EDGEC_WEIGHT = 1, /* the one block of weights */
  EDGEC_INPUT = 2,
  EDGEC_OUTPUT = 3,
  EDGEC_STATE = 4 /* the persistent buffer: what the previous run left */
};

/* A pointer: `offset` bytes into its place, plus `stride` bytes (possibly negative) for every
 * finished iteration of the innermost enclosing REPEAT. Outside of any REPEAT stride is 0.
 * Offsets into the arena and the weights are multiples of 64 unless a stride says otherwise. */
typedef struct edgec_arg {
  uint32_t where;
  uint32_t index;
  uint64_t offset;
  int64_t stride;
} edgec_arg;

/* A step, by kind:
 *   CALL    a = kernel, b = index of its first entry in args, c = number of arguments
 *   REPEAT  a = iterations, b = number of steps after this one that are its body; c = 0
 *   SELECT  a = index in args of the condition (one byte, 0 is false), b = number of steps after
 *           this one that are run when it is true, c = number of steps after those run when not
 * Bodies are contiguous, follow their step, and nest; counts include the steps nested within. */
enum { EDGEC_CALL = 0, EDGEC_REPEAT = 1, EDGEC_SELECT = 2 };

typedef struct edgec_step {
  uint32_t kind;
  uint32_t a, b, c;
} edgec_step;

/* A kernel returns 0 on success. It may call the runtime back through the pointers in pool.c. */
typedef struct edgec_kernel {
  int32_t (*call)(void *const *args);
  const char *name; /* for messages */
} edgec_kernel;

/* A recurrent tensor: a buffer of `bytes` bytes, zero at first, that steps read as STATE; after
 * every successful run the bytes at `next` are copied into it, state after state. `next` is not a
 * STATE, and still holds its value when the last step has run. */
typedef struct edgec_state {
  uint64_t bytes;
  edgec_arg next;
} edgec_state;

/* An extent that a run decides: when it ends, `count` points to an int64_t, the extent of output
 * `output` along `axis`. The extent in the table of outputs is the largest there can be. */
typedef struct edgec_extent {
  uint32_t output, axis;
  edgec_arg count;
} edgec_extent;

/* Of every input, golden data hold this many elements at most, repeated to fill the rest: a prime,
 * so that the repetition does not line up with rows. */
enum { EDGEC_GOLDEN_HEAD = 4093 };

/* An element passes the self-test when |got - want| <= atol + rtol |want|, or both are NaN. */
typedef struct edgec_tolerance {
  double rtol, atol;
} edgec_tolerance;

/* The number of inputs, outputs and states, and the size of the weights, stand in `model`. */
typedef struct edgec_program {
  edgec_model model;            /* EDGEC_MODEL(...); first, for the two are cast to each other */
  const unsigned char *weights; /* EDGEC_WEIGHTS */
  uint64_t arena_bytes;         /* a multiple of 64; may be 0 */
  uint64_t scratch_bytes; /* per thread: the most that a kernel's workspaces take together, each
                             rounded up to 64 bytes; may be 0 */
  const edgec_tensor *inputs;
  const edgec_tensor *outputs;
  const edgec_tolerance *tolerances; /* one per output */
  const edgec_tolerance *gpu_tolerances; /* on a GPU; NULL: the same */
  const edgec_state *states;
  const edgec_extent *extents; /* ordered by output */
  const edgec_kernel *kernels;
  const edgec_arg *args;
  const edgec_step *steps;
  uint32_t arg_count, step_count, extent_count;
  const struct edgec_cuda *cuda; /* the same kernels for a GPU; NULL: none */
} edgec_program;

#if defined(__GNUC__)
#define EDGEC_HIDDEN __attribute__((visibility("hidden")))
#define EDGEC_EXPORT __attribute__((visibility("default")))
#else
#define EDGEC_HIDDEN
#define EDGEC_EXPORT
#endif

/* The value of `.weights`: NULL, or, in a library that carries its weights, their address. */
#ifdef EDGEC_EMBED_WEIGHTS
extern const unsigned char edgec_embedded_weights[] EDGEC_HIDDEN;
#define EDGEC_WEIGHTS edgec_embedded_weights
#define EDGEC_WEIGHTS_EMBEDDED 1
#else
#define EDGEC_WEIGHTS NULL
#define EDGEC_WEIGHTS_EMBEDDED 0
#endif

EDGEC_HIDDEN uint64_t edgec_rt_arena_size(const edgec_model *, const edgec_options *);
EDGEC_HIDDEN edgec_status edgec_rt_create(const edgec_model *, const edgec_options *,
                                          edgec_instance **);
EDGEC_HIDDEN edgec_status edgec_rt_destroy(edgec_instance *);
EDGEC_HIDDEN edgec_status edgec_rt_run(edgec_instance *, const void *const *, void *const *,
                                       void *);
EDGEC_HIDDEN edgec_status edgec_rt_reset(edgec_instance *);
EDGEC_HIDDEN edgec_status edgec_rt_selftest(edgec_instance *, const void *, uint64_t);
EDGEC_HIDDEN const edgec_tensor *edgec_rt_input(const edgec_instance *, uint32_t);
EDGEC_HIDDEN const edgec_tensor *edgec_rt_output(const edgec_instance *, uint32_t);
EDGEC_HIDDEN const edgec_tensor *edgec_rt_result(const edgec_instance *, uint32_t);
EDGEC_HIDDEN edgec_status edgec_rt_profile(edgec_instance *, const void *const *, void *const *,
                                           uint64_t *, uint32_t);
EDGEC_HIDDEN const char *edgec_rt_last_error(const edgec_instance *);
EDGEC_HIDDEN const char *edgec_rt_device(const edgec_instance *);
EDGEC_HIDDEN uint32_t edgec_rt_thread_count(const edgec_instance *);

/* What makes instances: a program with a part for GPUs says edgec_cuda_create. */
#ifndef EDGEC_CREATE
#define EDGEC_CREATE edgec_rt_create
#endif

/* The public part of a program: NAME as written in the model, CPU features it requires as
 * /proc/cpuinfo names them (separated by one space, "" for none), the weights' SHA-256 (64
 * hexadecimal digits, "" for no weights) and size, and the number of inputs, outputs and states. */
#define EDGEC_MODEL(NAME, FEATURES, SHA256, BYTES, INPUTS, OUTPUTS, STATES)                        \
  {                                                                                               \
    .size = sizeof(edgec_model), .abi_version = EDGEC_ABI_VERSION, .name = NAME,                  \
    .cpu_features = FEATURES, .weights_sha256 = SHA256, .weights_bytes = BYTES,                   \
    .weights_embedded = EDGEC_WEIGHTS_EMBEDDED, .input_count = INPUTS, .output_count = OUTPUTS,   \
    .state_count = STATES, .arena_size = edgec_rt_arena_size, .create = EDGEC_CREATE,             \
    .destroy = edgec_rt_destroy, .run = edgec_rt_run, .reset = edgec_rt_reset,                    \
    .selftest = edgec_rt_selftest, .input = edgec_rt_input, .output = edgec_rt_output,            \
    .last_error = edgec_rt_last_error, .thread_count = edgec_rt_thread_count,                     \
    .result = edgec_rt_result, .profile = edgec_rt_profile, .device = edgec_rt_device             \
  }

/* Defines the library's one exported symbol, edgec_model_NAME. */
#define EDGEC_EXPORT_MODEL(NAME, PROGRAM)                                                          \
  EDGEC_EXPORT const edgec_model *edgec_model_##NAME(void);                                       \
  const edgec_model *edgec_model_##NAME(void) { return &(PROGRAM).model; }

#endif
