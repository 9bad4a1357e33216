/* SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception */
/*
 * edgec-measure: answers the requests of `trial.h` on standard input until it ends. A request and
 * an answer are preceded by their length in 8 bytes, little-endian.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/prctl.h>
#endif

#include "trial.h"

enum { USAGE = 2, DEVICE = 10 };

static const char usage[] =
  "usage: edgec-measure [--remove]\n"
  "  Runs the kernels that `edgec tune` sends it on standard input.\n"
  "  --remove   first removes its own file, and the folder it lies in if nothing else is there\n";

static const uint64_t most_bytes = (uint64_t)1 << 32;

static void write_all(int file, const void *data, uint64_t size) {
  for (uint64_t done = 0; done < size;) {
    ssize_t wrote = write(file, (const char *)data + done, size - done);
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0) exit(DEVICE);
    done += (uint64_t)wrote;
  }
}

/* 0 at the end of the file. */
static int read_all(int file, void *data, uint64_t size) {
  for (uint64_t done = 0; done < size;) {
    ssize_t got = read(file, (char *)data + done, size - done);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return 0;
    done += (uint64_t)got;
  }
  return 1;
}

static void remove_oneself(char *path) {
  char *slash = strrchr(path, '/');
  unlink(path);
  if (slash) {
    *slash = 0;
    rmdir(path);
    *slash = '/';
  }
}

int main(int count, char **words) {
  if (count == 2 && !strcmp(words[1], "--remove")) {
    remove_oneself(words[0]);
  } else if (count != 1) {
    fputs(usage, count == 2 && !strcmp(words[1], "--help") ? stdout : stderr);
    return count == 2 && !strcmp(words[1], "--help") ? 0 : USAGE;
  }
#ifdef __linux__
  prctl(PR_SET_PDEATHSIG, SIGKILL);
#endif
  signal(SIGINT, SIG_IGN);
  uint64_t size, answer_size, room = 0;
  unsigned char *request = NULL;
  while (read_all(0, &size, sizeof size)) {
    if (size > most_bytes) {
      fputs("edgec-measure: this is not a request\n", stderr);
      return USAGE;
    }
    if (size > room) {
      free(request);
      request = malloc(room = size);
      if (!request) return DEVICE;
    }
    if (!read_all(0, request, size)) break;
    const unsigned char *answer = edgec_answer(request, size, 0, &answer_size);
    if (!answer) break;
    write_all(1, &answer_size, sizeof answer_size);
    write_all(1, answer, answer_size);
  }
  return 0;
}
