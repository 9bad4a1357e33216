/* SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception */
#include "zip.h"

#include <stdint.h>
#include <string.h>

#include "sha256.h"

enum { END_SIZE = 22, ENTRY_SIZE = 46, LOCAL_SIZE = 30 };

static uint32_t u16(const unsigned char *p) { return (uint32_t)(p[0] | p[1] << 8); }
static uint32_t u32(const unsigned char *p) { return u16(p) | u16(p + 2) << 16; }

/* The content of the member whose entry in the central directory is given; NULL if it is damaged or
 * not stored. */
static const unsigned char *content(edgec_span file, const unsigned char *entry, size_t *size) {
  size_t local = u32(entry + 42);
  *size = u32(entry + 24);
  if (u16(entry + 10) != 0 || local > file.size || file.size - local < LOCAL_SIZE) return NULL;
  if (u32(file.data + local) != 0x04034b50) return NULL;
  size_t start = local + LOCAL_SIZE + u16(file.data + local + 26) + u16(file.data + local + 28);
  if (start > file.size || *size > file.size - start) return NULL;
  return file.data + start;
}

int edgec_zip_find(edgec_span file, const char *hex, edgec_span *member) {
  if (file.size < END_SIZE) return -1;
  size_t end = file.size - END_SIZE;
  while (u32(file.data + end) != 0x06054b50)
    if (end-- == 0) return -1;
  size_t at = u32(file.data + end + 16);
  for (uint32_t left = u16(file.data + end + 10); left; left--) {
    if (at > end || end - at < ENTRY_SIZE || u32(file.data + at) != 0x02014b50) return -1;
    const unsigned char *entry = file.data + at;
    char digest[65];
    member->data = content(file, entry, &member->size);
    if (!member->data) return -1;
    edgec_sha256(member->data, member->size, digest);
    if (!strcmp(digest, hex)) return 1;
    at += ENTRY_SIZE + u16(entry + 28) + u16(entry + 30) + u16(entry + 32);
  }
  return 0;
}
