/* SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception */
/* A trial is run by a child of this process: its crash or endless loop costs that trial alone. */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "trial.h"

/* 1 if every offset and size of the request lies within it. */
static int take_apart(const unsigned char *data, uint64_t size, edgec_request *r) {
  const edgec_trial *t = r->trial = (const edgec_trial *)data;
  if (size < sizeof *t || t->version != EDGEC_TRIAL_VERSION) return 0;
  if (t->buffer_count > EDGEC_MAX_PARAMETERS || t->fixup_count > size || t->image_bytes > size ||
      !t->threads || t->threads > EDGEC_MAX_THREADS || !t->bursts || t->bursts > 4096)
    return 0;
  uint64_t used = sizeof *t + t->buffer_count * sizeof *r->buffers;
  used += t->fixup_count * sizeof *r->fixups + t->image_bytes;
  if (used > size || t->text_bytes > t->image_bytes || t->entry >= t->text_bytes) return 0;
  r->buffers = (const edgec_buffer *)(t + 1);
  r->fixups = (const edgec_fixup *)(r->buffers + t->buffer_count);
  r->given = (const unsigned char *)(r->fixups + t->fixup_count);
  r->given_bytes = r->output_bytes = 0;
  for (uint32_t i = 0; i < t->buffer_count; i++) {
    const edgec_buffer *buffer = &r->buffers[i];
    if (buffer->bytes > t->memory_bytes || buffer->element_bytes > 8 ||
        buffer->exponent_bits + buffer->mantissa_bits > 63)
      return 0;
    if (buffer->fill == EDGEC_REAL && buffer->exponent_bits < 2) return 0;
    if (buffer->over >= (int64_t)t->buffer_count ||
        (buffer->over >= 0 && r->buffers[buffer->over].bytes < buffer->bytes))
      return 0;
    if (buffer->role == EDGEC_RESULT)
      r->output_bytes += buffer->bytes;
    else if (buffer->fill == EDGEC_GIVEN)
      r->given_bytes += buffer->bytes;
  }
  for (uint32_t i = 0; i < t->fixup_count; i++)
    if (r->fixups[i].offset + sizeof(uint64_t) > t->image_bytes) return 0;
  r->image = r->given + r->given_bytes;
  return used + r->given_bytes == size;
}

/* Waits until `ended` is closed, for `limit_ns` at most: 1. 0: too long, -1: `peer` is gone. */
static int wait_for(int ended, int peer, uint64_t limit_ns) {
#ifdef POLLRDHUP
  short gone = POLLRDHUP;
#else
  short gone = 0;
#endif
  int64_t deadline = edgec_now_ns() + (int64_t)limit_ns;
  for (;;) {
    struct pollfd files[2] = {{ended, POLLIN, 0}, {peer, gone, 0}};
    int64_t left = (deadline - edgec_now_ns()) / 1000000 + 1;
    if (left <= 0) return 0;
    if (poll(files, 2, left > 1000000 ? 1000000 : (int)left) < 0 && errno != EINTR) return 0;
    if (files[0].revents) return 1;
    if (files[1].revents) return -1;
  }
}

/* Runs a trial in a child; 0 when the peer is gone. */
static int watch_trial(const edgec_request *r, const edgec_memory *memory, edgec_outcome *outcome,
                       int peer) {
  int ends[2], status, result = 1;
  if (pipe(ends)) {
    outcome->status = EDGEC_EXHAUSTED;
    return 1;
  }
  int64_t start = edgec_now_ns();
  pid_t child = fork();
  if (child == 0) {
    close(ends[0]);
    edgec_run_trial(r, memory, outcome);
    _exit(0);
  }
  close(ends[1]);
  if (child < 0) {
    outcome->status = EDGEC_EXHAUSTED;
  } else {
    result = wait_for(ends[0], peer, r->trial->limit_ns);
    if (result != 1) kill(child, SIGKILL);
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
    if (result == 0) {
      outcome->status = EDGEC_HUNG;
    } else if (WIFSIGNALED(status)) {
      outcome->status = EDGEC_CRASHED;
      outcome->code = WTERMSIG(status);
    }
  }
  close(ends[0]);
  outcome->run_ns = (uint64_t)(edgec_now_ns() - start);
  return result >= 0;
}

/* Facts of this machine, as text. */
static uint64_t describe(const char *features, char *text, size_t size) {
  char missing[64] = "", name[128] = "";
  FILE *model = fopen("/proc/device-tree/model", "r");
  if (model) {
    if (!fgets(name, sizeof name, model)) *name = 0;
    fclose(model);
  }
  edgec_host_lacks(features, missing, sizeof missing);
  return (uint64_t)snprintf(text, size, "version %d\nthreads %u\nmissing %s\nboard %s\nimports %s\n",
                            EDGEC_TRIAL_VERSION, edgec_host_threads(), missing, name,
                            edgec_imports);
}

/* Prepares the buffers of a request anew, unless they are those of the last one. */
static int prepare(const edgec_request *r, edgec_memory *memory) {
  static unsigned char *last;
  static uint64_t last_size;
  const edgec_trial *t = r->trial;
  uint64_t facts[] = {t->pattern, t->seed, t->cold_bytes, t->memory_bytes, t->buffer_count};
  uint64_t table = t->buffer_count * sizeof *r->buffers;
  uint64_t size = sizeof facts + table + r->given_bytes;
  unsigned char *now = malloc(size);
  if (!now) return EDGEC_EXHAUSTED;
  memcpy(now, facts, sizeof facts);
  memcpy(now + sizeof facts, r->buffers, table);
  memcpy(now + sizeof facts + table, r->given, r->given_bytes);
  int same = last && last_size == size && !memcmp(last, now, size);
  free(last);
  last = now;
  last_size = size;
  if (same) return EDGEC_MEASURED;
  edgec_memory_release(memory);
  int status = edgec_memory_prepare(memory, t, r->buffers, r->given);
  if (status) {
    edgec_memory_release(memory);
    free(last);
    last = NULL;
  }
  return status;
}

const unsigned char *edgec_answer(const unsigned char *data, uint64_t size, int peer,
                                  uint64_t *answer_size) {
  static edgec_memory memory;
  static unsigned char *answer;
  static uint64_t mapped;
  static char text[4096];
  uint32_t kind = EDGEC_ASK_TRIAL;
  edgec_request r;
  if (size >= sizeof kind) memcpy(&kind, data, sizeof kind);
  if (kind == EDGEC_ASK_HOST) {
    char features[1024];
    uint64_t length = size - sizeof kind < sizeof features ? size - sizeof kind : 0;
    memcpy(features, data + sizeof kind, length);
    features[length] = 0;
    *answer_size = describe(features, text, sizeof text);
    return (const unsigned char *)text;
  }

  static edgec_outcome refusal;
  refusal = (edgec_outcome){EDGEC_MALFORMED, 0, 0, 0, 0, 0};
  *answer_size = sizeof refusal;
  if (!take_apart(data, size, &r)) return (const unsigned char *)&refusal;
  if (answer) munmap(answer, mapped);
  mapped = sizeof refusal + r.trial->bursts * sizeof(double) + r.output_bytes;
  answer = mmap(NULL, mapped, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  int64_t start = edgec_now_ns();
  refusal.status = EDGEC_EXHAUSTED;
  if (answer == MAP_FAILED) {
    answer = NULL;
    return (const unsigned char *)&refusal;
  }
  edgec_outcome *outcome = (edgec_outcome *)answer;
  if ((outcome->status = (uint32_t)prepare(&r, &memory)) == EDGEC_MEASURED) {
    outcome->prepare_ns = (uint64_t)(edgec_now_ns() - start);
    if (!watch_trial(&r, &memory, outcome, peer)) return NULL;
  }
  *answer_size = outcome->status == EDGEC_MEASURED && r.trial->wants_outputs
                   ? mapped
                   : sizeof refusal + r.trial->bursts * sizeof(double);
  return answer;
}
