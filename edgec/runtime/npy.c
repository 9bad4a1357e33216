/* SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception */
#include "npy.h"

#include <stdio.h>
#include <stdlib.h>

enum { HEADER_LIMIT = 4096, RANK_LIMIT = 64 };

const char *edgec_npy_dtype(int32_t dtype) {
  switch (dtype) {
    case EDGEC_FLOAT32: return "<f4";
    case EDGEC_FLOAT64: return "<f8";
    case EDGEC_FLOAT16: return "<f2";
    case EDGEC_INT8: return "|i1";
    case EDGEC_INT16: return "<i2";
    case EDGEC_INT32: return "<i4";
    case EDGEC_INT64: return "<i8";
    case EDGEC_UINT16: case EDGEC_BFLOAT16: return "<u2";
    case EDGEC_UINT32: return "<u4";
    case EDGEC_UINT64: return "<u8";
    case EDGEC_BOOL: return "|b1";
    default: return "|u1";
  }
}

static int is_packed(const edgec_tensor *tensor) {
  switch (tensor->dtype) {
    case EDGEC_UINT4: case EDGEC_INT4: case EDGEC_FLOAT4E2M1: case EDGEC_UINT2: case EDGEC_INT2:
      return 1;
    default:
      return 0;
  }
}

/* Writes the shape as Python writes a tuple: (), (3,), (1, 3). Returns 0 if it does not fit. */
static int format_shape(const edgec_tensor *tensor, char *text, size_t size) {
  int64_t packed = (int64_t)tensor->bytes;
  const int64_t *shape = is_packed(tensor) ? &packed : tensor->shape;
  uint32_t rank = is_packed(tensor) ? 1 : tensor->rank;
  size_t length = 0;
  if (rank > RANK_LIMIT) return 0;
  length += (size_t)snprintf(text, size, "(");
  for (uint32_t i = 0; i < rank && length < size; i++)
    length += (size_t)snprintf(text + length, size - length, "%s%lld%s", i ? " " : "",
                               (long long)shape[i], i + 1 < rank || rank == 1 ? "," : "");
  if (length < size) length += (size_t)snprintf(text + length, size - length, ")");
  return length < size;
}

static size_t u16(const unsigned char *p) { return (size_t)(p[0] | p[1] << 8); }

/* The text after `key` in numpy's header, a Python dictionary; NULL if it is not there. */
static const char *value_of(const char *header, const char *key) {
  const char *found = strstr(header, key);
  if (!found) return NULL;
  found += strlen(key);
  return found + strspn(found, " ");
}

static const char *check_header(const char *header, const edgec_tensor *tensor) {
  char shape[HEADER_LIMIT];
  const char *dtype = edgec_npy_dtype(tensor->dtype);
  const char *descr = value_of(header, "'descr':");
  const char *order = value_of(header, "'fortran_order':");
  const char *extent = value_of(header, "'shape':");
  if (!descr || !order || !extent) return "is not a .npy file";
  if (strncmp(descr + 1, dtype, 3) || (descr[4] != '\'' && descr[4] != '"'))
    return "holds another element type than the input";
  if (strncmp(order, "False", 5)) return "is in Fortran order";
  if (!format_shape(tensor, shape, sizeof shape)) return "has too many dimensions";
  return strncmp(extent, shape, strlen(shape)) ? "holds another shape than the input" : NULL;
}

const char *edgec_npy_read(const char *path, const edgec_tensor *tensor, void *data) {
  unsigned char start[12];
  char header[HEADER_LIMIT];
  const char *wrong = "is not a .npy file";
  FILE *file = fopen(path, "rb");
  if (!file) return "cannot be opened";
  if (fread(start, 1, 10, file) == 10 && !memcmp(start, "\x93NUMPY", 6)) {
    size_t length = u16(start + 8);
    int known = start[6] == 1;
    if (start[6] == 2 && fread(start + 10, 1, 2, file) == 2) known = u16(start + 10) == 0;
    if (known && length < sizeof header && fread(header, 1, length, file) == length) {
      header[length] = 0;
      wrong = check_header(header, tensor);
      if (!wrong && (fread(data, 1, tensor->bytes, file) != tensor->bytes || getc(file) != EOF))
        wrong = "is cut off, or too long";
    }
  }
  fclose(file);
  return wrong;
}

const char *edgec_npy_write(const char *path, const edgec_tensor *tensor, const void *data) {
  char shape[HEADER_LIMIT - 128], header[HEADER_LIMIT];
  if (!format_shape(tensor, shape, sizeof shape)) return "has too many dimensions";
  int length = snprintf(header, sizeof header,
                        "{'descr': '%s', 'fortran_order': False, 'shape': %s, }",
                        edgec_npy_dtype(tensor->dtype), shape);
  int padding = 63 - (10 + length) % 64;
  unsigned char start[10] = {0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0};
  start[8] = (unsigned char)((length + padding + 1) & 255);
  start[9] = (unsigned char)((length + padding + 1) >> 8);
  FILE *file = fopen(path, "wb");
  if (!file) return "cannot be written";
  int failed = fwrite(start, 1, sizeof start, file) != sizeof start ||
               fprintf(file, "%s%*s\n", header, padding, "") < 0 ||
               fwrite(data, 1, tensor->bytes, file) != tensor->bytes;
  failed |= fclose(file) != 0;
  if (failed) remove(path);
  return failed ? "cannot be written" : NULL;
}
