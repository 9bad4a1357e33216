/* SPDX-License-Identifier: Apache-2.0 */
/* Times of calls made from C, one after the other, in nanoseconds; 0 or what a call failed with. */
#define _GNU_SOURCE
#include <stddef.h>
#include <stdint.h>
#include <time.h>

static uint64_t now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

typedef int32_t edgec_run(void *instance, void *inputs, void *outputs, void *stream);

__attribute__((visibility("default")))
intptr_t burst_edgec(edgec_run *run, void *instance, void *inputs, void *outputs,
                     uint64_t *nanoseconds, uint32_t calls) {
  for (uint32_t i = 0; i < calls; i++) {
    uint64_t start = now();
    int32_t status = run(instance, inputs, outputs, NULL);
    nanoseconds[i] = now() - start;
    if (status) return status;
  }
  return 0;
}

typedef void *ort_run(void *session, void *options, void *input_names, void *inputs,
                      size_t input_count, void *output_names, size_t output_count, void *outputs);

__attribute__((visibility("default")))
intptr_t burst_onnxruntime(ort_run *run, void *session, void *input_names, void *inputs,
                           size_t input_count, void *output_names, void *outputs,
                           size_t output_count, uint64_t *nanoseconds, uint32_t calls) {
  for (uint32_t i = 0; i < calls; i++) {
    uint64_t start = now();
    void *status = run(session, NULL, input_names, inputs, input_count, output_names, output_count,
                       outputs);
    nanoseconds[i] = now() - start;
    if (status) return (intptr_t)status;
  }
  return 0;
}
