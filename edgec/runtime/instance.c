/* SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception */
/* Instances of a model: creation, execution of the program's steps, recurrent state. */
#define _GNU_SOURCE
#include <fenv.h>
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
  uint64_t pointers, caller, workers, lanes, size; /* offsets into the instance, and its size */
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
  l.caller = l.workers + l.threads * sizeof(pthread_t);
  l.size = l.caller + program->arg_count * sizeof(uint32_t);
  return l;
}

/* Copies what this version knows of the caller's options; 0 if they ask for more. */
static int read_options(edgec_options *known, const edgec_options *given) {
  *known = edgec_default_options();
  if (!given) return 1;
  memcpy(known, given, given->size < sizeof *known ? given->size : sizeof *known);
  for (uint32_t i = sizeof *known; i < given->size; i++)
    if (((const char *)given)[i]) return 0;
  return given->size >= sizeof given->size;
}

uint64_t edgec_rt_arena_size(const edgec_model *model, const edgec_options *given) {
  edgec_options options;
  read_options(&options, given);
  return lay_out(program_of(model), &options).arena_size;
}

static unsigned char *place_of(const instance *self, const edgec_arg *arg) {
  unsigned char *place = self->arena;
  if (arg->where == EDGEC_WEIGHT) place = self->weights;
  if (arg->where == EDGEC_STATE) {
    place = self->states;
    for (uint32_t i = 0; i < arg->index; i++) place += edgec_align(self->program->states[i].bytes);
  }
  return place + arg->offset;
}

void edgec_clear_states(instance *self) {
  for (uint32_t i = 0; i < self->base.model->state_count; i++) {
    edgec_arg state = {EDGEC_STATE, i, 0, 0};
    memset(place_of(self, &state), 0, self->program->states[i].bytes);
  }
}

edgec_status edgec_rt_create(const edgec_model *model, const edgec_options *given,
                             edgec_instance **created) {
  const edgec_program *program = program_of(model);
  edgec_options options;
  char missing[64];
  *created = NULL;
  if (!read_options(&options, given))
    return edgec_fail(options.error, options.error_size, EDGEC_INVALID,
                "the options have size %u and ask for more than this library's %u bytes hold: "
                "rebuild the model with a newer edgec",
                given->size, (unsigned)sizeof options);
#define REFUSE(status, ...) \
  return edgec_fail(options.error, options.error_size, status, __VA_ARGS__)
  if (edgec_host_lacks(model->cpu_features, missing, sizeof missing))
    REFUSE(EDGEC_UNSUPPORTED, "this CPU has no '%s', which model '%s' was compiled to use: compile "
           "it for this machine", missing, model->name);
  if (options.device) REFUSE(EDGEC_INVALID, "device %d: a CPU has device 0 only", options.device);

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
      self->pointers[i] = place_of(self, &program->args[i]);
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
  if (__atomic_load_n(&self->owner, __ATOMIC_RELAXED) != process) {
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
  if (status == EDGEC_OK) edgec_pool_join(&self->pool);
  free(self->allocated);
  free(self);
  return EDGEC_OK;
}

static int overlap(const void *a, uint64_t a_bytes, const void *b, uint64_t b_bytes) {
  uintptr_t p = (uintptr_t)a, q = (uintptr_t)b;
  return a_bytes && b_bytes && p < q + b_bytes && q < p + a_bytes;
}

static edgec_status check_buffer(instance *self, const char *kind, const edgec_tensor *tensor,
                                 const void *buffer) {
  uint32_t alignment = edgec_element_bytes(tensor->dtype);
  if (!buffer && tensor->bytes)
    return FAIL(self, EDGEC_INVALID, "%s '%s' is NULL", kind, tensor->name);
  if (alignment && (uintptr_t)buffer % alignment)
    return FAIL(self, EDGEC_INVALID, "%s '%s' at %p is not aligned to its elements of %u bytes",
                kind, tensor->name, buffer, alignment);
  return EDGEC_OK;
}

static edgec_status check_buffers(instance *self, const void *const *inputs, void *const *outputs) {
  const edgec_program *program = self->program;
  const edgec_model *model = self->base.model;
  if ((model->input_count && !inputs) || (model->output_count && !outputs))
    return FAIL(self, EDGEC_INVALID, "the list of %s is NULL", inputs ? "outputs" : "inputs");
  for (uint32_t i = 0; i < model->input_count; i++)
    if (check_buffer(self, "input", &program->inputs[i], inputs[i])) return EDGEC_INVALID;
  for (uint32_t i = 0; i < model->output_count; i++) {
    const edgec_tensor *output = &program->outputs[i];
    if (check_buffer(self, "output", output, outputs[i])) return EDGEC_INVALID;
    for (uint32_t j = 0; j < model->input_count; j++)
      if (overlap(outputs[i], output->bytes, inputs[j], program->inputs[j].bytes))
        return FAIL(self, EDGEC_INVALID, "output '%s' overlaps input '%s'", output->name,
                    program->inputs[j].name);
    for (uint32_t j = 0; j < i; j++)
      if (overlap(outputs[i], output->bytes, outputs[j], program->outputs[j].bytes))
        return FAIL(self, EDGEC_INVALID, "output '%s' overlaps output '%s'", output->name,
                    program->outputs[j].name);
  }
  return EDGEC_OK;
}

/* Moves the arguments of steps [first, end) by `turns` iterations of the REPEAT around them. */
static void shift(instance *self, uint32_t first, uint32_t end, int64_t turns) {
  const edgec_program *program = self->program;
  for (uint32_t s = first; s < end; s++) {
    const edgec_step *step = &program->steps[s];
    uint32_t argument = step->kind == EDGEC_SELECT ? step->a : step->b;
    uint32_t count = step->kind == EDGEC_SELECT ? 1 : step->c;
    for (uint32_t i = argument; i < argument + count; i++)
      self->pointers[i] = (char *)self->pointers[i] + program->args[i].stride * turns;
    if (step->kind == EDGEC_REPEAT) s += step->b; /* what is inside moves with that REPEAT */
  }
}

static edgec_status execute(instance *self, uint32_t first, uint32_t end) {
  const edgec_program *program = self->program;
  edgec_status status = EDGEC_OK;
  for (uint32_t s = first; s < end && !status; s++) {
    const edgec_step *step = &program->steps[s];
    if (step->kind == EDGEC_CALL) {
      const edgec_kernel *kernel = &program->kernels[step->a];
      int32_t result = kernel->call(self->pointers + step->b);
      uint64_t shortage = __atomic_exchange_n(&self->pool.scratch_shortage, 0, __ATOMIC_RELAXED);
      if (shortage)
        status = FAIL(self, EDGEC_FAILED,
                      "kernel '%s' (step %u) wants %llu bytes of scratch memory more than planned",
                      kernel->name, s, (unsigned long long)shortage);
      else if (result)
        status = FAIL(self, EDGEC_FAILED, "kernel '%s' (step %u) failed with code %d", kernel->name,
                      s, (int)result);
    } else if (step->kind == EDGEC_REPEAT) {
      uint32_t body = s + 1, body_end = body + step->b;
      int64_t moved = 0;
      for (uint32_t turn = 0; turn < step->a && !status; turn++, moved++) {
        status = execute(self, body, body_end);
        shift(self, body, body_end, 1);
      }
      shift(self, body, body_end, -moved);
      s += step->b;
    } else {
      uint32_t then = s + 1, otherwise = then + step->b;
      if (*(const unsigned char *)self->pointers[step->a])
        status = execute(self, then, otherwise);
      else
        status = execute(self, otherwise, otherwise + step->c);
      s += step->b + step->c;
    }
  }
  return status;
}

edgec_status edgec_run_once(instance *self, const void *const *inputs, void *const *outputs) {
  const edgec_program *program = self->program;
  if (check_buffers(self, inputs, outputs)) return EDGEC_INVALID;
  for (uint32_t i = 0; i < self->caller_count; i++) {
    const edgec_arg *arg = &program->args[self->caller[i]];
    const void *buffer = arg->where == EDGEC_INPUT ? inputs[arg->index] : outputs[arg->index];
    self->pointers[self->caller[i]] = (char *)buffer + arg->offset;
  }

  fenv_t environment;
  fegetenv(&environment);
  fesetenv(FE_DFL_ENV);
  edgec_lane *previous = edgec_pool_enter(&self->pool);
  edgec_status status = execute(self, 0, program->step_count);
  edgec_pool_leave(previous);
  fesetenv(&environment);

  for (uint32_t i = 0; i < self->base.model->state_count && !status; i++) {
    const edgec_arg *next = &program->states[i].next;
    edgec_arg state = {EDGEC_STATE, i, 0, 0};
    const unsigned char *from = place_of(self, next);
    if (next->where == EDGEC_INPUT)
      from = (const unsigned char *)inputs[next->index] + next->offset;
    if (next->where == EDGEC_OUTPUT)
      from = (unsigned char *)outputs[next->index] + next->offset;
    memcpy(place_of(self, &state), from, program->states[i].bytes);
  }
  return status;
}

edgec_status edgec_rt_run(edgec_instance *base, const void *const *inputs, void *const *outputs,
                          void *stream) {
  instance *self = (instance *)base;
  edgec_status status = edgec_acquire(self);
  if (status) return status;
  if (stream)
    status = FAIL(self, EDGEC_INVALID, "a stream was given, and a CPU has none: pass NULL");
  else
    status = edgec_run_once(self, inputs, outputs);
  edgec_release(self);
  return status;
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

const char *edgec_rt_last_error(const edgec_instance *base) {
  return ((const instance *)base)->error;
}

uint32_t edgec_rt_thread_count(const edgec_instance *base) {
  return ((const instance *)base)->pool.lane_count;
}
