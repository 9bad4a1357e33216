/* SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception */
/* The self-test: golden inputs through the model, and the comparison with golden outputs. */
#define _GNU_SOURCE
#include <math.h>
#include <stdlib.h>

#include "runtime.h"

uint32_t edgec_element_bytes(int32_t dtype) {
  switch (dtype) {
    case EDGEC_UINT8: case EDGEC_INT8: case EDGEC_BOOL:
    case EDGEC_FLOAT8E4M3FN: case EDGEC_FLOAT8E4M3FNUZ: case EDGEC_FLOAT8E5M2:
    case EDGEC_FLOAT8E5M2FNUZ: case EDGEC_FLOAT8E8M0: case EDGEC_FLOAT4E2M1:
    case EDGEC_UINT4: case EDGEC_INT4: case EDGEC_UINT2: case EDGEC_INT2:
      return 1;
    case EDGEC_UINT16: case EDGEC_INT16: case EDGEC_FLOAT16: case EDGEC_BFLOAT16:
      return 2;
    case EDGEC_FLOAT32: case EDGEC_INT32: case EDGEC_UINT32:
      return 4;
    case EDGEC_FLOAT64: case EDGEC_INT64: case EDGEC_UINT64:
      return 8;
    default:
      return 0;
  }
}

static double from_float16(uint16_t bits) {
  int exponent = bits >> 10 & 31, fraction = bits & 1023;
  double value;
  if (exponent == 31)
    value = fraction ? NAN : INFINITY;
  else
    value = ldexp(exponent ? fraction + 1024 : fraction, (exponent ? exponent : 1) - 25);
  return bits >> 15 ? -value : value;
}

static double element(int32_t dtype, const unsigned char *p) {
#define AS(TYPE) do { TYPE value; memcpy(&value, p, sizeof value); return (double)value; } while (0)
  uint16_t half;
  uint32_t word;
  float single;
  switch (dtype) {
    case EDGEC_FLOAT32: AS(float);
    case EDGEC_FLOAT64: AS(double);
    case EDGEC_INT8: AS(int8_t);
    case EDGEC_UINT16: AS(uint16_t);
    case EDGEC_INT16: AS(int16_t);
    case EDGEC_INT32: AS(int32_t);
    case EDGEC_UINT32: AS(uint32_t);
    case EDGEC_INT64: AS(int64_t);
    case EDGEC_UINT64: AS(uint64_t);
    case EDGEC_FLOAT16:
      memcpy(&half, p, sizeof half);
      return from_float16(half);
    case EDGEC_BFLOAT16:
      memcpy(&half, p, sizeof half);
      word = (uint32_t)half << 16;
      memcpy(&single, &word, sizeof single);
      return single;
    default: AS(uint8_t);
  }
#undef AS
}

/* Finds the first element in which `got` and `want` differ by more than `tolerance`; returns its
 * index, or -1, and stores both values. */
static int64_t first_difference(const edgec_tensor *tensor, const void *got, const void *want,
                                const edgec_tolerance *tolerance, double values[2]) {
  const unsigned char *g = got, *w = want;
  uint32_t size = edgec_element_bytes(tensor->dtype);
  for (uint64_t i = 0; i < tensor->bytes / size; i++, g += size, w += size) {
    if (!memcmp(g, w, size)) continue;
    double a = values[0] = element(tensor->dtype, g), b = values[1] = element(tensor->dtype, w);
    if (isnan(a) && isnan(b)) continue;
    if (a == b && tensor->dtype != EDGEC_INT64 && tensor->dtype != EDGEC_UINT64) continue;
    double allowed = tolerance->atol + tolerance->rtol * fabs(b);
    if (fabs(a - b) <= allowed && a != b && isfinite(b)) continue;
    return (int64_t)i;
  }
  return -1;
}

/* Bytes that golden data hold of an input. */
static uint64_t head_bytes(const edgec_tensor *input) {
  uint64_t most = (uint64_t)EDGEC_GOLDEN_HEAD * edgec_element_bytes(input->dtype);
  return input->bytes < most ? input->bytes : most;
}

/* Fills an input with its head, over and over. */
static void expand(unsigned char *data, const edgec_tensor *input, const unsigned char *head) {
  uint64_t done = head_bytes(input);
  memcpy(data, head, done);
  while (done < input->bytes) {
    uint64_t more = input->bytes - done < done ? input->bytes - done : done;
    memcpy(data + done, data, more);
    done += more;
  }
}

/* Compares the run's outputs with golden extents and outputs. */
static edgec_status compare(instance *self, void *const *outputs, const unsigned char *golden) {
  const edgec_program *program = self->program;
  for (uint32_t i = 0; i < program->extent_count; i++) {
    const edgec_extent *entry = &program->extents[i];
    const edgec_tensor *result = &self->results[entry->output];
    int64_t want;
    memcpy(&want, golden + i * sizeof want, sizeof want);
    if (result->shape[entry->axis] != want)
      return FAIL(self, EDGEC_MISMATCH, "output '%s' has extent %lld on axis %u, golden is %lld",
                  result->name, (long long)result->shape[entry->axis], entry->axis,
                  (long long)want);
  }
  golden += edgec_align(program->extent_count * sizeof(int64_t));
  const edgec_tolerance *allowed =
    self->backend && program->gpu_tolerances ? program->gpu_tolerances : program->tolerances;
  for (uint32_t i = 0; i < self->base.model->output_count; i++) {
    const edgec_tensor *result = &self->results[i];
    double values[2];
    int64_t where = first_difference(result, outputs[i], golden, &allowed[i], values);
    if (where >= 0)
      return FAIL(self, EDGEC_MISMATCH, "output '%s' is %.9g at element %lld, golden is %.9g",
                  result->name, values[0], (long long)where, values[1]);
    golden += edgec_align(result->bytes);
  }
  return EDGEC_OK;
}

static edgec_status selftest(instance *self, const unsigned char *golden, uint64_t golden_size) {
  const edgec_program *program = self->program;
  const edgec_model *model = self->base.model;
  uint64_t heads = 0, inputs_size = 0, outputs_size = 0;
  for (uint32_t i = 0; i < model->input_count; i++) {
    heads += edgec_align(head_bytes(&program->inputs[i]));
    inputs_size += edgec_align(program->inputs[i].bytes);
  }
  uint64_t expected = heads + edgec_align(program->extent_count * sizeof(int64_t));
  for (uint32_t i = 0; i < program->extent_count && golden_size >= expected; i++) {
    int64_t extent;
    memcpy(&extent, golden + heads + i * sizeof extent, sizeof extent);
    edgec_set_extent(self, i, extent);
  }
  for (uint32_t i = 0; i < model->output_count; i++) {
    outputs_size += edgec_align(program->outputs[i].bytes);
    expected += edgec_align(self->results[i].bytes);
  }
  if ((uintptr_t)golden % EDGEC_ALIGNMENT)
    return FAIL(self, EDGEC_INVALID, "the golden data are not aligned to %d bytes",
                EDGEC_ALIGNMENT);
  if (edgec_align(golden_size) != expected)
    return FAIL(self, EDGEC_INVALID, "%llu bytes of golden data given, %llu expected",
                (unsigned long long)golden_size, (unsigned long long)expected);

  uint32_t count = model->input_count + model->output_count;
  void *memory, **buffers = calloc(count + 1, sizeof *buffers);
  if (!buffers || posix_memalign(&memory, EDGEC_ALIGNMENT, inputs_size + outputs_size + 1)) {
    free(buffers);
    return FAIL(self, EDGEC_NO_MEMORY, "no %llu bytes for the self-test's inputs and outputs",
                (unsigned long long)(inputs_size + outputs_size));
  }
  unsigned char *place = memory;
  void **outputs = buffers + model->input_count;
  for (uint32_t i = 0; i < model->input_count; i++) {
    expand(place, &program->inputs[i], golden);
    buffers[i] = place;
    place += edgec_align(program->inputs[i].bytes);
    golden += edgec_align(head_bytes(&program->inputs[i]));
  }
  for (uint32_t i = 0; i < model->output_count; i++) {
    outputs[i] = place;
    place += edgec_align(program->outputs[i].bytes);
  }
  edgec_clear_states(self);
  edgec_status status = edgec_run_once(self, (const void *const *)buffers, outputs);
  edgec_clear_states(self);
  if (!status) status = compare(self, outputs, golden);
  free(memory);
  free(buffers);
  return status;
}

edgec_status edgec_rt_selftest(edgec_instance *base, const void *golden, uint64_t golden_size) {
  instance *self = (instance *)base;
  edgec_status status = edgec_acquire(self);
  if (status) return status;
  status = selftest(self, golden, golden_size);
  for (uint32_t i = 0; i < self->program->extent_count; i++) edgec_set_extent(self, i, INT64_MAX);
  edgec_release(self);
  return status;
}
