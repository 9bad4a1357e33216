/* SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception */
/* A run: checks of the caller's buffers, execution of the program's steps, what is left behind. */
#include "rounding.h"
#include "runtime.h"

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

/* Adds the time since the last call of this function to step `s`. */
static void note_time(instance *self, uint32_t s) {
  int64_t now = edgec_now_ns();
  self->step_ns[s] += (uint64_t)(now - self->clock_ns);
  self->clock_ns = now;
}

static edgec_status execute(instance *self, uint32_t first, uint32_t end) {
  const edgec_program *program = self->program;
  edgec_status status = EDGEC_OK;
  for (uint32_t s = first; s < end && !status; s++) {
    const edgec_step *step = &program->steps[s];
    if (step->kind == EDGEC_CALL && self->backend) {
      status = self->backend->launch(self, step->a, self->pointers + step->b);
      if (self->step_ns) note_time(self, s);
    } else if (step->kind == EDGEC_CALL) {
      const edgec_kernel *kernel = &program->kernels[step->a];
      int32_t result = kernel->call(self->pointers + step->b);
      if (self->step_ns) note_time(self, s);
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
      const unsigned char *at = self->pointers[step->a];
      unsigned char chosen = 0;
      if (self->backend)
        status = self->backend->condition(self, at, &chosen);
      else
        chosen = *at;
      if (status) return status;
      if (chosen)
        status = execute(self, then, otherwise);
      else
        status = execute(self, otherwise, otherwise + step->c);
      s += step->b + step->c;
    }
  }
  return status;
}

edgec_status edgec_execute(instance *self) {
  return execute(self, 0, self->program->step_count);
}

/* Where an argument that no REPEAT moves lies during a run. */
static const unsigned char *during_run(const instance *self, const edgec_arg *arg,
                                       const void *const *inputs, void *const *outputs) {
  if (arg->where == EDGEC_INPUT) return (const unsigned char *)inputs[arg->index] + arg->offset;
  if (arg->where == EDGEC_OUTPUT) return (unsigned char *)outputs[arg->index] + arg->offset;
  return edgec_place_of(self, arg);
}

edgec_status edgec_run_once(instance *self, const void *const *inputs, void *const *outputs) {
  const edgec_program *program = self->program;
  if (check_buffers(self, inputs, outputs)) return EDGEC_INVALID;
  if (self->step_ns) self->clock_ns = edgec_now_ns();
  if (self->backend) return self->backend->run(self, inputs, outputs);
  for (uint32_t i = 0; i < self->caller_count; i++) {
    const edgec_arg *arg = &program->args[self->caller[i]];
    self->pointers[self->caller[i]] = (void *)during_run(self, arg, inputs, outputs);
  }

  edgec_rounding before = edgec_round_to_nearest();
  edgec_lane *previous = edgec_pool_enter(&self->pool);
  edgec_status status = edgec_execute(self);
  edgec_pool_leave(previous);
  edgec_round_as_before(&before);
  if (status) return status;

  for (uint32_t i = 0; i < self->base.model->state_count; i++) {
    edgec_arg state = {EDGEC_STATE, i, 0, 0};
    memcpy(edgec_place_of(self, &state),
           during_run(self, &program->states[i].next, inputs, outputs), program->states[i].bytes);
  }
  for (uint32_t i = 0; i < program->extent_count; i++) {
    int64_t extent;
    memcpy(&extent, during_run(self, &program->extents[i].count, inputs, outputs), sizeof extent);
    edgec_set_extent(self, i, extent);
  }
  return EDGEC_OK;
}

edgec_status edgec_rt_run(edgec_instance *base, const void *const *inputs, void *const *outputs,
                          void *stream) {
  instance *self = (instance *)base;
  edgec_status status = edgec_acquire(self);
  if (status) return status;
  self->stream = stream;
  if (stream && !self->backend)
    status = FAIL(self, EDGEC_INVALID, "a stream was given, and a CPU has none: pass NULL");
  else
    status = edgec_run_once(self, inputs, outputs);
  self->stream = NULL;
  edgec_release(self);
  return status;
}

edgec_status edgec_rt_profile(edgec_instance *base, const void *const *inputs,
                              void *const *outputs, uint64_t *nanoseconds, uint32_t count) {
  instance *self = (instance *)base;
  edgec_status status = edgec_acquire(self);
  if (status) return status;
  if (count != self->program->step_count) {
    status = FAIL(self, EDGEC_INVALID, "times of %u steps asked for, the model has %u", count,
                  self->program->step_count);
  } else {
    memset(nanoseconds, 0, count * sizeof *nanoseconds);
    self->step_ns = nanoseconds;
    status = edgec_run_once(self, inputs, outputs);
    self->step_ns = NULL;
  }
  edgec_release(self);
  return status;
}
