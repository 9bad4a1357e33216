/* SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception */
/* Instances on a GPU: their memory, code and weights; the CPU where no GPU will do. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <stdio.h>

#include "cuda.h"

enum {
  PINNED_MAPPED = 2 | 1, /* CU_MEMHOSTALLOC_DEVICEMAP, PORTABLE */
  NON_BLOCKING = 1,
  NO_BINARY = 209,
  NO_MEMORY = 2
};

static edgec_weights *all_weights;
static pthread_mutex_t weights_mutex = PTHREAD_MUTEX_INITIALIZER;

static void give_back_weights(edgec_on_gpu *b) {
  pthread_mutex_lock(&weights_mutex);
  if (b->weights && !--b->weights->users) {
    for (edgec_weights **link = &all_weights; *link; link = &(*link)->next)
      if (*link == b->weights) {
        *link = b->weights->next;
        break;
      }
    b->gpu.driver->release(b->weights->address);
    free(b->weights);
  }
  pthread_mutex_unlock(&weights_mutex);
}

static void destroy_backend(edgec_on_gpu *b) {
  const edgec_driver *d = b->gpu.driver;
  CUcontext before;
  if (b->gpu.context && !d->push(b->gpu.context)) {
    for (uint32_t i = 0; i < EDGEC_GRAPHS; i++)
      if (b->graphs[i].graph) d->graph_exec_destroy(b->graphs[i].graph);
    for (uint32_t i = 0; b->modules && i < b->code->image_count; i++)
      if (b->modules[i]) d->unload(b->modules[i]);
    if (b->memory) d->release(b->memory);
    if (b->pinned) d->host_release(b->pinned);
    if (b->own) d->stream_destroy(b->own);
    give_back_weights(b);
    d->pop(&before);
  }
  edgec_gpu_close(&b->gpu);
  free(b);
}

static void destroy(instance *self) { destroy_backend((edgec_on_gpu *)self->backend); }

static edgec_status load_code(edgec_on_gpu *b, const char *model, char *why, uint64_t size) {
  const edgec_driver *d = b->gpu.driver;
  const edgec_cuda *code = b->code;
  for (uint32_t i = 0; i < code->image_count; i++) {
    const edgec_image *image = &code->images[i];
    CUresult failure = d->load(&b->modules[i], code->images_data + image->cubin);
    if (failure == NO_BINARY && image->ptx_bytes)
      failure = d->load(&b->modules[i], code->images_data + image->ptx);
    if (failure)
      return edgec_fail(why, size, EDGEC_UNSUPPORTED,
                        "model '%s' was compiled for GPUs of %s and CUDA %d.%d; this is %s, its "
                        "driver of CUDA %d.%d says %s: compile it for this GPU, as in --target "
                        "cuda-%.*s",
                        model, code->arch, code->toolkit / 1000, code->toolkit % 1000 / 10,
                        b->gpu.name, b->gpu.driver_version / 1000,
                        b->gpu.driver_version % 1000 / 10, edgec_cuda_error(d, failure),
                        (int)strcspn(strrchr(b->gpu.name, '(') + 1, ")"),
                        strrchr(b->gpu.name, '(') + 1);
  }
  for (uint32_t i = 0; i < code->launch_count; i++) {
    const edgec_launch *l = &code->launches[i];
    CUresult failure = d->function(&b->functions[i], b->modules[l->image], l->function);
    if (failure)
      return edgec_fail(why, size, EDGEC_UNSUPPORTED, "GPU function %s cannot be used: %s",
                        l->function, edgec_cuda_error(d, failure));
  }
  return EDGEC_OK;
}

/* The weights on the GPU: uploaded by the first instance there. */
static CUresult share_weights(edgec_on_gpu *b, const edgec_model *model, const void *weights) {
  CUresult failure = 0;
  if (!model->weights_bytes) return 0;
  pthread_mutex_lock(&weights_mutex);
  for (edgec_weights *each = all_weights; each && !b->weights; each = each->next)
    if (each->model == model && each->device == b->gpu.device) b->weights = each;
  if (!b->weights) {
    edgec_weights *made = calloc(1, sizeof *made);
    failure = made ? b->gpu.driver->allocate(&made->address, model->weights_bytes) : NO_MEMORY;
    if (!failure && (failure = b->gpu.driver->to_device(made->address, weights,
                                                        model->weights_bytes)))
      b->gpu.driver->release(made->address);
    if (failure) {
      free(made);
    } else {
      made->model = model, made->device = b->gpu.device, made->next = all_weights;
      all_weights = b->weights = made;
    }
  }
  if (b->weights) b->weights->users++;
  pthread_mutex_unlock(&weights_mutex);
  return failure;
}

/* Allocates all memory of an instance whose arena and states take `arena` bytes. */
static CUresult reserve(edgec_on_gpu *b, const edgec_program *program, uint64_t arena) {
  const edgec_driver *d = b->gpu.driver;
  uint32_t ins = program->model.input_count, outs = program->model.output_count, i;
  uint64_t scratch = (arena + 255) / 256 * 256, staged, device;
  for (i = 0; i < ins + outs + program->extent_count; i++) {
    if (i == ins) b->input_bytes = b->staged_bytes;
    b->offsets[i] = b->staged_bytes;
    b->staged_bytes += edgec_align(i < ins          ? program->inputs[i].bytes
                                   : i < ins + outs ? program->outputs[i - ins].bytes
                                                    : sizeof(int64_t));
  }
  if (!outs && !program->extent_count) b->input_bytes = b->staged_bytes;
  staged = scratch + (b->code->scratch_bytes + 255) / 256 * 256;
  device = staged + (b->gpu.integrated ? 0 : b->staged_bytes);
  CUresult failure = d->allocate(&b->memory, device + 256);
  if (!failure) failure = d->host_allocate((void **)&b->pinned, b->staged_bytes + 64,
                                           PINNED_MAPPED);
  if (failure) return failure;
  b->scratch = b->memory + scratch;
  b->staged = b->memory + staged;
  if (b->gpu.integrated) failure = d->host_pointer(&b->staged, b->pinned, 0);
  return failure;
}

static edgec_status create_on_gpu(const edgec_model *model, const edgec_options *options, int gpu,
                                  edgec_instance **created, char *why, uint64_t size) {
  const edgec_program *program = (const edgec_program *)model;
  const edgec_cuda *code = program->cuda;
  uint32_t buffers = model->input_count + model->output_count;
  uint64_t bytes = sizeof(edgec_on_gpu) + code->image_count * sizeof(CUmodule) +
                   code->launch_count * sizeof(CUfunction) +
                   (buffers + program->extent_count) * sizeof(uint64_t) +
                   (EDGEC_GRAPHS + 1) * buffers * sizeof(CUdeviceptr);
  edgec_options given = *options;
  CUcontext before;
  edgec_on_gpu *b = calloc(1, bytes);
  if (!b) return edgec_fail(why, size, EDGEC_NO_MEMORY, "no memory for the instance");
  b->code = code;
  b->modules = (CUmodule *)(b + 1);
  b->functions = (CUfunction *)(b->modules + code->image_count);
  b->offsets = (uint64_t *)(b->functions + code->launch_count);
  b->addresses = b->offsets + buffers + program->extent_count;
  for (uint32_t i = 0; i < EDGEC_GRAPHS; i++)
    b->graphs[i].addresses = b->addresses + (i + 1) * buffers;
  edgec_gpu_hooks(&b->hooks);
  b->hooks.destroy = destroy;

  edgec_status status = edgec_gpu_open(&b->gpu, gpu, why, size);
  if (status) {
    destroy_backend(b);
    return status;
  }
  given.device = 0, given.threads = 1, given.error = why, given.error_size = size;
  b->hooks.name = b->gpu.name;
  CUresult failure = b->gpu.driver->push(b->gpu.context);
  if (!failure) {
    given.arena_size = edgec_rt_arena_size(model, &given);
    failure = b->gpu.driver->stream_create(&b->own, NON_BLOCKING);
    if (!failure) status = load_code(b, model->name, why, size);
    if (!failure && !status) failure = reserve(b, program, given.arena_size);
    const void *weights = given.weights ? given.weights : program->weights;
    if (!failure && !status && weights) failure = share_weights(b, model, weights);
    b->gpu.driver->pop(&before);
  }
  if (failure)
    status = edgec_fail(why, size, failure == NO_MEMORY ? EDGEC_NO_MEMORY : EDGEC_UNSUPPORTED,
                        "GPU %s cannot hold model '%s': %s", b->gpu.name, model->name,
                        edgec_cuda_error(b->gpu.driver, failure));
  if (!status) {
    given.arena = (void *)(uintptr_t)b->memory;
    if (b->weights) {
      given.weights = (const void *)(uintptr_t)b->weights->address;
      given.weights_size = options->weights ? options->weights_size : model->weights_bytes;
    }
    status = edgec_create_on(&b->hooks, model, &given, created);
  }
  if (status) destroy_backend(b);
  return status;
}

edgec_status edgec_cuda_create(const edgec_model *model, const edgec_options *given,
                               edgec_instance **created) {
  edgec_options options;
  char why[256] = "";
  *created = NULL;
  edgec_status status = edgec_read_options(&options, given);
  if (status) return status;
  if (options.device >= 0) {
    int gpu = options.device > 0 ? options.device - 1 : 0;
    status = create_on_gpu(model, &options, gpu, created, why, sizeof why);
    if (!status || options.device > 0) {
      if (status) edgec_fail(options.error, options.error_size, status, "%s", why);
      return status;
    }
  }
  status = edgec_rt_create(model, &options, created);
  if (!status && *why) {
    instance *self = (instance *)*created;
    snprintf(self->device, sizeof self->device, "CPU: %s", why);
  }
  return status;
}
