/* SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception */
/*
 * The C interface of a compiled model.
 *
 * A library holds one model and exports one symbol, `edgec_model_NAME`. It returns a table of facts
 * and functions; the inline functions below call through it. Several models, and several versions
 * of this interface, live side by side in one program: nothing is shared between libraries.
 *
 *     const edgec_model *model = edgec_model_digits();
 *     edgec_instance *digits;
 *     char why[256];
 *     edgec_options options = edgec_default_options();
 *     options.error = why, options.error_size = sizeof why;
 *     if (edgec_create(model, &options, &digits)) return puts(why), 1;
 *     const void *inputs[] = {image};
 *     void *outputs[] = {scores};
 *     if (edgec_run(digits, inputs, outputs, NULL)) puts(edgec_last_error(digits));
 *     edgec_destroy(digits);
 *
 * Instances are independent: any number may exist and run at once in different threads. One
 * instance serves one call at a time; a second concurrent call returns EDGEC_BUSY. After creation
 * edgec itself allocates nothing; the first parallel step starts the worker threads. After fork()
 * the child may go on using its instances. Destroy them all before a library is unloaded.
 */
#ifndef EDGEC_H
#define EDGEC_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

#define EDGEC_ABI_VERSION 1u

typedef enum edgec_status {
  EDGEC_OK = 0,
  EDGEC_INVALID = 1,     /* an argument does not fit; the error text says which and why */
  EDGEC_NO_MEMORY = 2,   /* the instance does not fit in memory, or in the memory given */
  EDGEC_BUSY = 3,        /* the instance is in use by another thread */
  EDGEC_UNSUPPORTED = 4, /* this machine lacks a CPU feature that the code uses */
  EDGEC_FAILED = 5,      /* a kernel reported a failure */
  EDGEC_MISMATCH = 6,    /* the self-test computed something else than the golden data */
  EDGEC_FORKED = 7       /* fork() happened during a run: the child cannot use this instance */
} edgec_status;

/* Element types, numbered as in ONNX. Elements of 4 and 2 bits share bytes, the first in
 * the low bits. */
typedef enum edgec_dtype {
  EDGEC_FLOAT32 = 1,
  EDGEC_UINT8 = 2,
  EDGEC_INT8 = 3,
  EDGEC_UINT16 = 4,
  EDGEC_INT16 = 5,
  EDGEC_INT32 = 6,
  EDGEC_INT64 = 7,
  EDGEC_BOOL = 9,
  EDGEC_FLOAT16 = 10,
  EDGEC_FLOAT64 = 11,
  EDGEC_UINT32 = 12,
  EDGEC_UINT64 = 13,
  EDGEC_BFLOAT16 = 16,
  EDGEC_FLOAT8E4M3FN = 17,
  EDGEC_FLOAT8E4M3FNUZ = 18,
  EDGEC_FLOAT8E5M2 = 19,
  EDGEC_FLOAT8E5M2FNUZ = 20,
  EDGEC_UINT4 = 21,
  EDGEC_INT4 = 22,
  EDGEC_FLOAT4E2M1 = 23,
  EDGEC_FLOAT8E8M0 = 24,
  EDGEC_UINT2 = 25,
  EDGEC_INT2 = 26
} edgec_dtype;

/* An input or output: dense, row-major, little-endian. */
typedef struct edgec_tensor {
  const char *name;
  const int64_t *shape; /* `rank` extents */
  uint32_t rank;
  int32_t dtype; /* an edgec_dtype */
  uint64_t bytes;
} edgec_tensor;

/* Calls task(arg, i) once for every 0 <= i < count, on any threads; returns when all are done. */
typedef void (*edgec_parallel_for)(void *context, void (*task)(void *arg, uint32_t i), void *arg,
                                   uint32_t count);

/* How to create an instance. Start from edgec_default_options(); zero always means the default. */
typedef struct edgec_options {
  uint32_t size;     /* sizeof(edgec_options) as the caller knows it */
  uint32_t threads;  /* 0: as many as the affinity mask and the cgroup's CPU quota allow */
  int32_t spin_us;   /* microseconds that idle workers spin before they sleep; 0: 100, < 0: none */
  int32_t device;    /* 0: the first GPU, where the model has code for one and it can be used, else
                        the CPU; n > 0: GPU n, or fail; EDGEC_CPU: the CPU */
  edgec_parallel_for parallel_for; /* run parallel steps here instead of on edgec's own threads */
  void *parallel_for_context;
  void *arena;         /* memory for intermediate values, 64-byte aligned; NULL: allocated */
  uint64_t arena_size; /* at least edgec_arena_size() */
  const void *weights; /* 64-byte aligned, kept by reference; NULL: those inside the library */
  uint64_t weights_size;
  char *error; /* receives the reason when creation fails */
  uint64_t error_size;
} edgec_options;

enum { EDGEC_CPU = -1 };

typedef struct edgec_model edgec_model;

/* Opaque but for its first member. */
typedef struct edgec_instance {
  const edgec_model *model;
} edgec_instance;

/* Facts and functions of a model. Fields are only ever appended; `size` tells how many. */
struct edgec_model {
  uint32_t size;
  uint32_t abi_version;
  const char *name;
  const char *cpu_features;   /* required, as /proc/cpuinfo names them, separated by spaces */
  const char *weights_sha256; /* hexadecimal; "" when there are no weights */
  uint64_t weights_bytes;
  uint32_t weights_embedded; /* 1: the library carries its weights */
  uint32_t input_count;
  uint32_t output_count;
  uint32_t state_count; /* recurrent tensors kept inside the instance */
  uint64_t (*arena_size)(const edgec_model *, const edgec_options *);
  edgec_status (*create)(const edgec_model *, const edgec_options *, edgec_instance **);
  edgec_status (*destroy)(edgec_instance *);
  edgec_status (*run)(edgec_instance *, const void *const *, void *const *, void *);
  edgec_status (*reset)(edgec_instance *);
  edgec_status (*selftest)(edgec_instance *, const void *, uint64_t);
  const edgec_tensor *(*input)(const edgec_instance *, uint32_t);
  const edgec_tensor *(*output)(const edgec_instance *, uint32_t);
  const char *(*last_error)(const edgec_instance *);
  uint32_t (*thread_count)(const edgec_instance *);
  const edgec_tensor *(*result)(const edgec_instance *, uint32_t);
  edgec_status (*profile)(edgec_instance *, const void *const *, void *const *, uint64_t *,
                          uint32_t);
  const char *(*device)(const edgec_instance *);
};

static inline edgec_options edgec_default_options(void) {
  edgec_options options;
  memset(&options, 0, sizeof options);
  options.size = (uint32_t)sizeof options;
  return options;
}

/* Bytes an instance made with these options (NULL: defaults) needs at `options.arena`. */
static inline uint64_t edgec_arena_size(const edgec_model *model, const edgec_options *options) {
  return model->arena_size(model, options);
}

/* Makes an instance, its recurrent state zero. On failure *instance is NULL and options.error says
 * why. EDGEC_INVALID, EDGEC_NO_MEMORY, EDGEC_UNSUPPORTED. */
static inline edgec_status edgec_create(const edgec_model *model, const edgec_options *options,
                                        edgec_instance **instance) {
  return model->create(model, options, instance);
}

/* Joins the instance's workers and frees it; NULL is allowed. EDGEC_BUSY: it is running, and was
 * left alone. */
static inline edgec_status edgec_destroy(edgec_instance *instance) {
  return instance ? instance->model->destroy(instance) : EDGEC_OK;
}

/* Runs the model once, without copying: inputs[i] and outputs[i] point to edgec_input(instance, i)
 * and edgec_output(instance, i)->bytes bytes, aligned for their element type. Outputs may overlap
 * neither inputs nor each other. `stream` is NULL on a CPU. After a failure the contents of the
 * outputs are unspecified and the recurrent state is as before. EDGEC_INVALID, EDGEC_BUSY,
 * EDGEC_FAILED, EDGEC_FORKED.
 *
 * On a GPU a buffer may be memory of the GPU, or host memory that it can address (managed,
 * cuMemHostAlloc): it is used where it is, aligned to 16 bytes; ordinary memory is copied. `stream` is a CUstream to run
 * on, NULL one of the instance's own. The call returns when the outputs are there, but for a stream
 * of the caller's with no ordinary memory among the buffers: then, when the work is queued. */
static inline edgec_status edgec_run(edgec_instance *instance, const void *const *inputs,
                                     void *const *outputs, void *stream) {
  return instance->model->run(instance, inputs, outputs, stream);
}

/* Runs the model once, like edgec_run(), and writes how many nanoseconds each of the `count` steps
 * took, all its iterations together; 0 for a step that was skipped or only holds others. The steps
 * are those of the artifact's manifest, each before the ones inside it; EDGEC_INVALID: `count` is
 * not their number. */
static inline edgec_status edgec_profile(edgec_instance *instance, const void *const *inputs,
                                         void *const *outputs, uint64_t *nanoseconds,
                                         uint32_t count) {
  return instance->model->profile(instance, inputs, outputs, nanoseconds, count);
}

/* Sets the recurrent state to zero. EDGEC_BUSY, EDGEC_FORKED. */
static inline edgec_status edgec_reset(edgec_instance *instance) {
  return instance->model->reset(instance);
}

/* Runs the golden inputs from a zero state and compares with the golden outputs; the state is zero
 * afterwards. `golden` holds the first 4093 elements of every input (all of a smaller one), which
 * are repeated to fill it; then, where inputs decide extents of outputs, these extents as 64-bit
 * integers, in the order of the outputs; then all outputs. Each part starts at a multiple of 64
 * bytes from `golden`, which is 64-byte aligned itself. Allocates while it runs. EDGEC_MISMATCH:
 * the error text names the first element that differs. */
static inline edgec_status edgec_selftest(edgec_instance *instance, const void *golden,
                                          uint64_t golden_size) {
  return instance->model->selftest(instance, golden, golden_size);
}

/* The i-th input or output, or NULL when there is none: what buffers must hold. It never changes,
 * and lives as long as the instance. */
static inline const edgec_tensor *edgec_input(const edgec_instance *instance, uint32_t i) {
  return instance->model->input(instance, i);
}
static inline const edgec_tensor *edgec_output(const edgec_instance *instance, uint32_t i) {
  return instance->model->output(instance, i);
}

/* The i-th output as the last successful run made it, or NULL when there is none. It differs from
 * edgec_output() where the input decides an extent, such as the number of detections: that shape is
 * the largest there can be, this one the shape of the dense data at the beginning of the buffer.
 * Before the first run the two are equal. Every run changes what the pointer shows. */
static inline const edgec_tensor *edgec_result(const edgec_instance *instance, uint32_t i) {
  return instance->model->result(instance, i);
}

/* Why the last call on this instance failed, other than by EDGEC_BUSY; "" if none did. */
static inline const char *edgec_last_error(const edgec_instance *instance) {
  return instance->model->last_error(instance);
}

/* What runs the instance: "CPU", with the reason why no GPU does where the model has code for one,
 * or the GPU's name. */
static inline const char *edgec_device(const edgec_instance *instance) {
  return instance->model->device(instance);
}

/* How many threads, the caller's included, a parallel step runs on. */
static inline uint32_t edgec_thread_count(const edgec_instance *instance) {
  return instance->model->thread_count(instance);
}

#ifdef __cplusplus
}
#endif
#endif
