/* SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception */
/* The driver's library, opened when the first instance wants a GPU, and the GPUs it knows. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>

#include "cuda.h"

enum { CAPABILITY_MAJOR = 75, CAPABILITY_MINOR = 76, INTEGRATED = 18 };

static edgec_driver driver;
static pthread_mutex_t opening = PTHREAD_MUTEX_INITIALIZER;
static int opened; /* 1: `driver` is complete */

const char *edgec_cuda_error(const edgec_driver *known, CUresult code) {
  static __thread char text[96];
  const char *name = NULL;
  if (known->error_name(code, &name) || !name) name = "CUDA error";
  snprintf(text, sizeof text, "%s (%d)", name, code);
  return text;
}

static edgec_status open_driver(char *why, uint64_t size) {
  void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (!library)
    return edgec_fail(why, size, EDGEC_UNSUPPORTED,
                      "there is no NVIDIA driver: libcuda.so.1 cannot be opened");
#define RESOLVE(NAME, SYMBOL, PARAMETERS)                                                         \
  *(void **)&driver.NAME = dlsym(library, SYMBOL);                                                \
  if (!driver.NAME)                                                                               \
    return edgec_fail(why, size, EDGEC_UNSUPPORTED,                                               \
                      "the NVIDIA driver has no " SYMBOL ": CUDA 11.4 is the oldest supported");
  EDGEC_DRIVER(RESOLVE)
#undef RESOLVE
  CUresult failure = driver.init(0);
  if (failure)
    return edgec_fail(why, size, EDGEC_UNSUPPORTED, "the NVIDIA driver does not start: %s",
                      edgec_cuda_error(&driver, failure));
  opened = 1;
  return EDGEC_OK;
}

edgec_status edgec_gpu_open(edgec_gpu *gpu, int ordinal, char *why, uint64_t size) {
  int count = 0, major = 0, minor = 0;
  char name[96] = "";
  memset(gpu, 0, sizeof *gpu);
  pthread_mutex_lock(&opening);
  edgec_status status = opened ? EDGEC_OK : open_driver(why, size);
  pthread_mutex_unlock(&opening);
  if (status) return status;
  gpu->driver = &driver;
  if (driver.device_count(&count) || ordinal >= count)
    return edgec_fail(why, size, EDGEC_UNSUPPORTED, "there is no GPU number %d, the driver has %d",
                      ordinal, count);
  CUresult failure = driver.device(&gpu->device, ordinal);
  if (!failure) failure = driver.device_name(name, sizeof name, gpu->device);
  if (!failure) failure = driver.device_attribute(&major, CAPABILITY_MAJOR, gpu->device);
  if (!failure) failure = driver.device_attribute(&minor, CAPABILITY_MINOR, gpu->device);
  if (!failure) failure = driver.device_attribute(&gpu->integrated, INTEGRATED, gpu->device);
  if (!failure) failure = driver.version(&gpu->driver_version);
  if (!failure) failure = driver.retain(&gpu->context, gpu->device);
  snprintf(gpu->name, sizeof gpu->name, "%s (sm_%d%d)", name, major, minor);
  if (failure)
    return edgec_fail(why, size, EDGEC_UNSUPPORTED, "GPU %s cannot be used: %s", gpu->name,
                      edgec_cuda_error(&driver, failure));
  return EDGEC_OK;
}

void edgec_gpu_close(edgec_gpu *gpu) {
  if (gpu->context) driver.let_go(gpu->device);
  gpu->context = NULL;
}
