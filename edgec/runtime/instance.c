/* SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception */
/* Instances of a model: creation, exclusive use, recurrent state, descriptions. */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "runtime.h"

edgec_status edgec_fail(char *text, uint64_t size, edgec_status status, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  if (text && size) vsnprintf(text, size, format, arguments);
  va_end(arguments);
  return status;
}

static const edgec_program *program_of(const edgec_model *model) {
  return (const edgec_program *)model;
}

/* Where the parts of an instance's memory lie. */
typedef struct layout {
  uint32_t threads;
  uint64_t states, scratch, arena_size; /* offsets into the arena, and its whole size */
  /* offsets into the instance, and its size */
  uint64_t pointers, caller, workers, lanes, results, shapes, size;
} layout;

static layout lay_out(const edgec_program *program, const edgec_options *options) {
  layout l;
  l.threads = options->threads ? options->threads : edgec_host_threads();
  if (l.threads > EDGEC_MAX_THREADS) l.threads = EDGEC_MAX_THREADS;
  l.states = edgec_align(program->arena_bytes);
  l.scratch = l.states;
  for (uint32_t i = 0; i < program->model.state_count; i++)
    l.scratch += edgec_align(program->states[i].bytes);
  l.arena_size = l.scratch + l.threads * edgec_align(program->scratch_bytes);
  l.lanes = edgec_align(sizeof(instance));
  l.pointers = l.lanes + l.threads * sizeof(edgec_lane);
  l.workers = l.pointers + program->arg_count * sizeof(void *);
  l.results = l.workers + l.threads * sizeof(pthread_t);
  l.shapes = l.results + program->model.output_count * sizeof(edgec_tensor);
  l.caller = l.shapes;
  for (uint32_t i = 0; i < program->model.output_count; i++)
    l.caller += program->outputs[i].rank * sizeof(int64_t);
  l.size = l.caller + program->arg_count * sizeof(uint32_t);
  return l;
}

edgec_status edgec_read_options(edgec_options *known, const edgec_options *given) {
  *known = edgec_default_options();
  if (!given) return EDGEC_OK;
  memcpy(known, given, given->size < sizeof *known ? given->size : sizeof *known);
  int more = given->size < sizeof given->size;
  for (uint32_t i = sizeof *known; i < given->size; i++) more |= ((const char *)given)[i] != 0;
  if (!more) return EDGEC_OK;
  return edgec_fail(known->error, known->error_size, EDGEC_INVALID,
                    "the options have size %u and ask for more than this library's %u bytes hold: "
                    "rebuild the model with a newer edgec",
                    given->size, (unsigned)sizeof *known);
}

uint64_t edgec_rt_arena_size(const edgec_model *model, const edgec_options *given) {
  edgec_options options;
  edgec_read_options(&options, given);
  return lay_out(program_of(model), &options).arena_size;
}

unsigned char *edgec_place_of(const instance *self, const edgec_arg *arg) {
  unsigned char *place = self->arena;
  if (arg->where == EDGEC_WEIGHT) place = self->weights;
  if (arg->where == EDGEC_STATE) {
    place = self->states;
    for (uint32_t i = 0; i < arg->index; i++) place += edgec_align(self->program->states[i].bytes);
  }
  return place + arg->offset;
}

void edgec_clear_states(instance *self) {
  if (self->backend) {
    self->backend->clear_states(self);
    return;
  }
  for (uint32_t i = 0; i < self->base.model->state_count; i++) {
    edgec_arg state = {EDGEC_STATE, i, 0, 0};
    memset(edgec_place_of(self, &state), 0, self->program->states[i].bytes);
  }
}

void edgec_set_extent(instance *self, uint32_t row, int64_t extent) {
  const edgec_extent *entry = &self->program->extents[row];
  edgec_tensor *result = &self->results[entry->output];
  int64_t most = self->program->outputs[entry->output].shape[entry->axis];
  ((int64_t *)result->shape)[entry->axis] = extent < 0 ? 0 : extent < most ? extent : most;
  result->bytes = edgec_element_bytes(result->dtype);
  for (uint32_t axis = 0; axis < result->rank; axis++)
    result->bytes *= (uint64_t)result->shape[axis];
}

edgec_status edgec_rt_create(const edgec_model *model, const edgec_options *given,
                             edgec_instance **created) {
  return edgec_create_on(NULL, model, given, created);
}

edgec_status edgec_create_on(edgec_backend *backend, const edgec_model *model,
                             const edgec_options *given, edgec_instance **created) {
  const edgec_program *program = program_of(model);
  edgec_options options;
  char missing[64];
  *created = NULL;
  if (edgec_read_options(&options, given)) return EDGEC_INVALID;
#define REFUSE(status, ...) \
  return edgec_fail(options.error, options.error_size, status, __VA_ARGS__)
  if (edgec_host_lacks(model->cpu_features, missing, sizeof missing))
    REFUSE(EDGEC_UNSUPPORTED, "this CPU has no '%s', which model '%s' was compiled to use: compile "
           "it for this machine (edgec compile MODEL --target NAME; `edgec targets probe` finds NAME)",
           missing, model->name);
  if (options.device > 0)
    REFUSE(EDGEC_UNSUPPORTED, "GPU %d was asked for, and model '%s' has code for a CPU only: "
           "compile it for a target with a GPU", options.device, model->name);

  const unsigned char *weights = options.weights ? options.weights : program->weights;
  uint64_t weights_size = options.weights ? options.weights_size : model->weights_bytes;
  if (model->weights_bytes && !weights)
    REFUSE(EDGEC_INVALID, "model '%s' needs its %llu bytes of weights", model->name,
           (unsigned long long)model->weights_bytes);
  if (model->weights_bytes && weights_size != model->weights_bytes)
    REFUSE(EDGEC_INVALID, "%llu bytes of weights given, model '%s' has %llu",
           (unsigned long long)weights_size, model->name, (unsigned long long)model->weights_bytes);
  if ((uintptr_t)weights % EDGEC_ALIGNMENT)
    REFUSE(EDGEC_INVALID, "the weights are not aligned to %d bytes", EDGEC_ALIGNMENT);

  layout l = lay_out(program, &options);
  if (options.arena && (uintptr_t)options.arena % EDGEC_ALIGNMENT)
    REFUSE(EDGEC_INVALID, "the arena is not aligned to %d bytes", EDGEC_ALIGNMENT);
  if (options.arena && options.arena_size < l.arena_size)
    REFUSE(EDGEC_NO_MEMORY, "the arena has %llu bytes, %llu are needed with %u threads",
           (unsigned long long)options.arena_size, (unsigned long long)l.arena_size, l.threads);
  void *memory, *allocated = NULL;
  if (!options.arena && posix_memalign(&allocated, EDGEC_ALIGNMENT, l.arena_size + 1))
    REFUSE(EDGEC_NO_MEMORY, "no %llu bytes for the arena", (unsigned long long)l.arena_size);
  if (posix_memalign(&memory, EDGEC_ALIGNMENT, l.size)) {
    free(allocated);
    REFUSE(EDGEC_NO_MEMORY, "no %llu bytes for the instance", (unsigned long long)l.size);
  }
#undef REFUSE

  unsigned char *base = memory;
  instance *self = memory;
  memset(base, 0, l.size);
  self->base.model = model;
  self->program = program;
  self->backend = backend;
  snprintf(self->device, sizeof self->device, "%s", backend ? backend->name : "CPU");
  self->owner = getpid();
  self->weights = (unsigned char *)weights;
  self->allocated = allocated;
  self->arena = options.arena ? options.arena : allocated;
  self->states = self->arena + l.states;
  self->pointers = (void **)(base + l.pointers);
  self->caller = (uint32_t *)(base + l.caller);
  for (uint32_t i = 0; i < program->arg_count; i++) {
    uint32_t where = program->args[i].where;
    if (where == EDGEC_INPUT || where == EDGEC_OUTPUT)
      self->caller[self->caller_count++] = i;
    else
      self->pointers[i] = edgec_place_of(self, &program->args[i]);
  }

  int64_t *shape = (int64_t *)(base + l.shapes);
  self->results = (edgec_tensor *)(base + l.results);
  for (uint32_t i = 0; i < model->output_count; i++) {
    self->results[i] = program->outputs[i];
    self->results[i].shape = shape;
    for (uint32_t axis = 0; axis < program->outputs[i].rank; axis++)
      *shape++ = program->outputs[i].shape[axis];
  }

  edgec_pool *pool = &self->pool;
  pool->lanes = (edgec_lane *)(base + l.lanes);
  pool->workers = (pthread_t *)(base + l.workers);
  pool->lane_count = l.threads;
  pool->spin_ns = (options.spin_us ? options.spin_us : 100) * (int64_t)1000;
  pool->scratch_bytes = edgec_align(program->scratch_bytes);
  pool->parallel_for = options.parallel_for;
  pool->parallel_for_context = options.parallel_for_context;
  for (uint32_t i = 0; i < l.threads; i++) {
    pool->lanes[i].pool = pool;
    pool->lanes[i].scratch = self->arena + l.scratch + i * pool->scratch_bytes;
  }
  edgec_pool_init(pool);
  edgec_clear_states(self);
  *created = &self->base;
  return EDGEC_OK;
}

edgec_status edgec_acquire(instance *self) {
  int64_t process = getpid();
  int here = __atomic_load_n(&self->owner, __ATOMIC_RELAXED) == process;
  if (__atomic_exchange_n(&self->busy, 1, __ATOMIC_ACQUIRE))
    return here ? EDGEC_BUSY : EDGEC_FORKED;
  if (!here && self->backend) { /* a GPU's context stays with the parent */
    edgec_release(self);
    return EDGEC_FORKED;
  }
  if (!here) {
    edgec_pool_init(&self->pool);
    __atomic_store_n(&self->owner, process, __ATOMIC_RELAXED);
  }
  self->error[0] = 0;
  return EDGEC_OK;
}

void edgec_release(instance *self) { __atomic_store_n(&self->busy, 0, __ATOMIC_RELEASE); }

edgec_status edgec_rt_destroy(edgec_instance *base) {
  instance *self = (instance *)base;
  edgec_status status = edgec_acquire(self);
  if (status == EDGEC_BUSY) return status;
  if (status == EDGEC_OK) {
    edgec_pool_join(&self->pool);
    if (self->backend) self->backend->destroy(self);
  }
  free(self->allocated);
  free(self);
  return EDGEC_OK;
}

edgec_status edgec_rt_reset(edgec_instance *base) {
  instance *self = (instance *)base;
  edgec_status status = edgec_acquire(self);
  if (status) return status;
  edgec_clear_states(self);
  edgec_release(self);
  return EDGEC_OK;
}

const edgec_tensor *edgec_rt_input(const edgec_instance *base, uint32_t i) {
  return i < base->model->input_count ? &((const instance *)base)->program->inputs[i] : NULL;
}

const edgec_tensor *edgec_rt_output(const edgec_instance *base, uint32_t i) {
  return i < base->model->output_count ? &((const instance *)base)->program->outputs[i] : NULL;
}

const edgec_tensor *edgec_rt_result(const edgec_instance *base, uint32_t i) {
  return i < base->model->output_count ? &((const instance *)base)->results[i] : NULL;
}

const char *edgec_rt_last_error(const edgec_instance *base) {
  return ((const instance *)base)->error;
}

const char *edgec_rt_device(const edgec_instance *base) {
  return ((const instance *)base)->device;
}

uint32_t edgec_rt_thread_count(const edgec_instance *base) {
  return ((const instance *)base)->pool.lane_count;
}
