/* SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception */
/*
 * Instances on a GPU. They run the same steps over the same buffers as on a CPU; an argument is an
 * address of the GPU's, and a kernel is launches. The first run of a set of addresses is recorded
 * as a graph, which later ones launch.
 *
 *   device memory:  arena, states | scratch | inputs | outputs, extents
 *   host memory, pinned:                      inputs | outputs, extents
 *
 * What the caller gives in ordinary memory goes through the pinned memory, all of it in one
 * transfer; memory that the GPU can address itself is used where it is. A GPU that shares the
 * processor's memory works on the pinned block directly, without any transfer.
 */
#define _GNU_SOURCE
#include "cuda.h"

enum { MEMORY_DEVICE_POINTER = 3, CAPTURE_THREAD = 1, WIDEST_LOAD = 16 };

#define TRY(self, driver, call)                                                                   \
  do {                                                                                            \
    CUresult failure_ = (driver)->call;                                                           \
    if (failure_)                                                                                 \
      return FAIL(self, EDGEC_FAILED, "the GPU failed: %s in %s",                                 \
                  edgec_cuda_error(driver, failure_), #call);                                     \
  } while (0)

static edgec_on_gpu *of(const instance *self) { return (edgec_on_gpu *)self->backend; }

static edgec_status launch(instance *self, uint32_t kernel, void *const *args) {
  edgec_on_gpu *b = of(self);
  const edgec_cuda *code = b->code;
  const edgec_gpu_kernel *rows = &code->kernels[kernel];
  for (uint32_t i = rows->first; i < rows->first + rows->count; i++) {
    const edgec_launch *l = &code->launches[i];
    CUdeviceptr values[EDGEC_MAX_POINTERS];
    void *pointers[EDGEC_MAX_POINTERS];
    for (uint32_t p = 0; p < l->pointer_count; p++) {
      const edgec_pointer *given = &code->pointers[l->pointer + p];
      values[p] = given->argument < 0 ? b->scratch + given->offset
                                      : (CUdeviceptr)(uintptr_t)args[given->argument];
      pointers[p] = &values[p];
    }
    CUresult failure = b->gpu.driver->launch(
      b->functions[i], l->grid[0], l->grid[1], l->grid[2], l->block[0], l->block[1], l->block[2],
      0, b->stream, pointers, NULL);
    if (failure)
      return FAIL(self, EDGEC_FAILED, "the GPU failed: %s in starting kernel '%s'",
                  edgec_cuda_error(b->gpu.driver, failure), self->program->kernels[kernel].name);
  }
  if (self->step_ns) TRY(self, b->gpu.driver, stream_wait(b->stream));
  return EDGEC_OK;
}

static edgec_status condition(instance *self, const void *at, unsigned char *value) {
  edgec_on_gpu *b = of(self);
  TRY(self, b->gpu.driver, to_host_async(value, (CUdeviceptr)(uintptr_t)at, 1, b->stream));
  TRY(self, b->gpu.driver, stream_wait(b->stream));
  return EDGEC_OK;
}

/* Where an argument that no REPEAT moves lies during a run. */
static CUdeviceptr address_of(const instance *self, const edgec_arg *arg) {
  const edgec_on_gpu *b = of(self);
  if (arg->where == EDGEC_INPUT) return b->addresses[arg->index] + arg->offset;
  if (arg->where == EDGEC_OUTPUT)
    return b->addresses[self->base.model->input_count + arg->index] + arg->offset;
  return (CUdeviceptr)(uintptr_t)edgec_place_of(self, arg);
}

/* Whether the caller's buffer `i` (inputs, then outputs) is staged. */
static int is_staged(const edgec_on_gpu *b, uint32_t i) {
  return b->addresses[i] == b->staged + b->offsets[i];
}

/* Everything that a run does on the stream. */
static edgec_status enqueue(instance *self) {
  edgec_on_gpu *b = of(self);
  const edgec_driver *d = b->gpu.driver;
  const edgec_program *program = self->program;
  uint32_t inputs = program->model.input_count, outputs = program->model.output_count;
  int staged_in = 0, staged_out = program->extent_count > 0;
  for (uint32_t i = 0; i < inputs; i++) staged_in |= is_staged(b, i);
  for (uint32_t i = 0; i < outputs; i++) staged_out |= is_staged(b, inputs + i);

  if (staged_in && !b->gpu.integrated)
    TRY(self, d, to_device_async(b->staged, b->pinned, b->input_bytes, b->stream));
  edgec_status status = edgec_execute(self);
  if (status) return status;
  for (uint32_t i = 0; i < program->model.state_count; i++) {
    edgec_arg state = {EDGEC_STATE, i, 0, 0};
    TRY(self, d, copy_async(address_of(self, &state), address_of(self, &program->states[i].next),
                            program->states[i].bytes, b->stream));
  }
  for (uint32_t i = 0; i < program->extent_count; i++) {
    TRY(self, d, copy_async(b->staged + b->offsets[inputs + outputs + i],
                            address_of(self, &program->extents[i].count), sizeof(int64_t),
                            b->stream));
  }
  if (staged_out && !b->gpu.integrated)
    TRY(self, d, to_host_async(b->pinned + b->input_bytes, b->staged + b->input_bytes,
                               b->staged_bytes - b->input_bytes, b->stream));
  return EDGEC_OK;
}

/* The graph of the addresses of this run, edgec_recorded now where there is none; NULL: run by steps. */
static edgec_status find_graph(instance *self, CUgraphExec *found) {
  edgec_on_gpu *b = of(self);
  const edgec_driver *d = b->gpu.driver;
  uint32_t count = self->program->model.input_count + self->program->model.output_count;
  *found = NULL;
  if (b->code->conditional || self->step_ns) return EDGEC_OK;
  for (uint32_t i = 0; i < EDGEC_GRAPHS; i++)
    if (b->graphs[i].graph &&
        !memcmp(b->graphs[i].addresses, b->addresses, count * sizeof *b->addresses)) {
      *found = b->graphs[i].graph;
      return EDGEC_OK;
    }
  CUgraph graph = NULL;
  CUstream stream = b->stream;
  b->stream = b->own;
  TRY(self, d, capture(b->own, CAPTURE_THREAD));
  edgec_status status = enqueue(self);
  CUresult failure = d->captured(b->own, &graph);
  b->stream = stream;
  if (status) {
    if (graph) d->graph_destroy(graph);
    return status;
  }
  edgec_recorded *place = &b->graphs[b->next_graph++ % EDGEC_GRAPHS];
  if (place->graph) d->graph_exec_destroy(place->graph);
  place->graph = NULL;
  if (!failure) failure = d->instantiate(&place->graph, graph, 0);
  if (graph) d->graph_destroy(graph);
  if (failure)
    return FAIL(self, EDGEC_FAILED, "the GPU failed: %s in recording a run",
                edgec_cuda_error(d, failure));
  memcpy(place->addresses, b->addresses, count * sizeof *b->addresses);
  *found = place->graph;
  return EDGEC_OK;
}

/* The address by which the GPU can use the caller's buffer; 0 where it cannot. */
static CUdeviceptr reachable(const edgec_on_gpu *b, const void *buffer) {
  CUdeviceptr address = 0;
  if (b->gpu.driver->pointer_attribute(&address, MEMORY_DEVICE_POINTER,
                                       (CUdeviceptr)(uintptr_t)buffer))
    return 0;
  return address;
}

static edgec_status run(instance *self, const void *const *inputs, void *const *outputs) {
  edgec_on_gpu *b = of(self);
  const edgec_driver *d = b->gpu.driver;
  const edgec_program *program = self->program;
  uint32_t ins = program->model.input_count, outs = program->model.output_count;
  int staged = program->extent_count > 0;
  CUgraphExec graph;
  for (uint32_t i = 0; i < ins + outs; i++) {
    const edgec_tensor *tensor = i < ins ? &program->inputs[i] : &program->outputs[i - ins];
    const void *buffer = i < ins ? inputs[i] : outputs[i - ins];
    b->addresses[i] = tensor->bytes ? reachable(b, buffer) : 0;
    if (b->addresses[i] % WIDEST_LOAD)
      return FAIL(self, EDGEC_INVALID,
                  "%s '%s' at %p is memory of the GPU and not aligned to %d bytes",
                  i < ins ? "input" : "output", tensor->name, buffer, WIDEST_LOAD);
    if (!b->addresses[i]) b->addresses[i] = b->staged + b->offsets[i];
    staged |= is_staged(b, i);
    if (i < ins && is_staged(b, i)) memcpy(b->pinned + b->offsets[i], buffer, tensor->bytes);
  }
  for (uint32_t i = 0; i < self->caller_count; i++) {
    uint32_t place = self->caller[i];
    self->pointers[place] = (void *)(uintptr_t)address_of(self, &program->args[place]);
  }
  b->stream = self->stream ? (CUstream)self->stream : b->own;
  edgec_status status = find_graph(self, &graph);
  if (status) return status;
  if (graph)
    TRY(self, d, graph_launch(graph, b->stream));
  else if ((status = enqueue(self)))
    return status;
  if (self->stream && !staged) return EDGEC_OK;
  TRY(self, d, stream_wait(b->stream));
  for (uint32_t i = 0; i < outs; i++)
    if (is_staged(b, ins + i))
      memcpy(outputs[i], b->pinned + b->offsets[ins + i], program->outputs[i].bytes);
  for (uint32_t i = 0; i < program->extent_count; i++) {
    int64_t extent;
    memcpy(&extent, b->pinned + b->offsets[ins + outs + i], sizeof extent);
    edgec_set_extent(self, i, extent);
  }
  return EDGEC_OK;
}

static edgec_status run_in_context(instance *self, const void *const *inputs,
                                   void *const *outputs) {
  edgec_on_gpu *b = of(self);
  CUcontext before;
  TRY(self, b->gpu.driver, push(b->gpu.context));
  edgec_status status = run(self, inputs, outputs);
  b->gpu.driver->pop(&before);
  return status;
}

static void clear_states(instance *self) {
  edgec_on_gpu *b = of(self);
  const edgec_driver *d = b->gpu.driver;
  CUcontext before;
  if (d->push(b->gpu.context)) return;
  for (uint32_t i = 0; i < self->program->model.state_count; i++) {
    edgec_arg state = {EDGEC_STATE, i, 0, 0};
    d->fill_async(address_of(self, &state), 0, self->program->states[i].bytes, b->own);
  }
  d->stream_wait(b->own);
  d->pop(&before);
}

void edgec_gpu_hooks(edgec_backend *hooks) {
  hooks->run = run_in_context;
  hooks->launch = launch;
  hooks->condition = condition;
  hooks->clear_states = clear_states;
}
