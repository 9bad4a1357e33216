/* `host ROOT FEATURES`: what the runtime would find on a machine with 16 CPUs and the files below
 * ROOT: the number of threads, and the first CPU feature that is lacking. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>

static const char *root;

static int open_below_root(const char *path, int flags) {
  char below[PATH_MAX];
  snprintf(below, sizeof below, "%s%s", root, path);
  return open(below, flags);
}

static int sixteen_cpus(pid_t process, size_t size, cpu_set_t *set) {
  (void)process;
  memset(set, 0, size);
  memset(set, 0xff, 2);
  return 0;
}

#define open open_below_root
#define sched_getaffinity sixteen_cpus
#include "../../../edgec/runtime/host.c"

int main(int count, char **words) {
  char missing[64] = "";
  if (count != 3) return 2;
  root = words[1];
  edgec_host_lacks(words[2], missing, sizeof missing);
  printf("%u %s\n", edgec_host_threads(), missing);
  return 0;
}
