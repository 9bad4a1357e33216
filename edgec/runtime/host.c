/* SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception */
/* What this machine grants the process: CPUs, a share of their time, and their features. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#if defined(__linux__)
#include <sys/auxv.h>
#endif

#include "runtime.h"

/* Reads the beginning of a file as text; returns its length, 0 on failure. */
static size_t read_text(const char *path, char *text, size_t size) {
  size_t length = 0;
  ssize_t got = 1;
  int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file >= 0) {
    while (length < size - 1 && (got = read(file, text + length, size - 1 - length)) > 0)
      length += (size_t)got;
    close(file);
  }
  text[length] = 0;
  return length;
}

#if defined(__linux__)
/* What a CPU can do beside the machine's fastest, which has 1024; 0 where the kernel says nothing. */
static long capacity_of(uint32_t cpu) {
  char path[64], text[32];
  snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%u/cpu_capacity", cpu);
  return read_text(path, text, sizeof text) ? strtol(text, NULL, 10) : 0;
}

/* The CPUs that the process may run on, but for those that can do less than half of the fastest:
 * a step would wait for its share on a small core. */
static uint32_t affinity_threads(void) {
  enum { LONG_BITS = 8 * sizeof(long), CPUS = 8192 }; /* the most Linux knows */
  unsigned long mask[CPUS / LONG_BITS];
  uint32_t all = 0, fast = 0;
  long most = 0;
  memset(mask, 0, sizeof mask);
  if (sched_getaffinity(0, sizeof mask, (cpu_set_t *)mask)) return 1;
  for (int counting = 0; counting < 2; counting++)
    for (uint32_t cpu = 0; cpu < CPUS; cpu++) {
      if (!(mask[cpu / LONG_BITS] >> cpu % LONG_BITS & 1)) continue;
      long capacity = counting && !most ? 0 : capacity_of(cpu);
      if (!counting && capacity > most) most = capacity;
      if (counting) all++, fast += 2 * capacity >= most;
      if (!counting && !capacity) break;
    }
  return most ? fast : all ? all : 1;
}

/* The CPUs' worth of time that one control group may use, rounded down; UINT32_MAX: no limit. */
static uint32_t group_quota(const char *directory, int version) {
  char path[PATH_MAX + 64], text[64];
  long long quota = -1, period = 0;
  if (version == 2) {
    snprintf(path, sizeof path, "%s/cpu.max", directory);
    if (read_text(path, text, sizeof text)) sscanf(text, "%lld %lld", &quota, &period);
  } else {
    snprintf(path, sizeof path, "%s/cpu.cfs_quota_us", directory);
    if (read_text(path, text, sizeof text)) quota = strtoll(text, NULL, 10);
    snprintf(path, sizeof path, "%s/cpu.cfs_period_us", directory);
    if (read_text(path, text, sizeof text)) period = strtoll(text, NULL, 10);
  }
  if (quota <= 0 || period <= 0) return UINT32_MAX;
  return quota < period ? 1 : (uint32_t)(quota / period);
}

/* The least quota of a group and all groups around it. */
static uint32_t path_quota(const char *root, const char *group, int version) {
  char path[PATH_MAX];
  size_t root_length = strlen(root);
  uint32_t least = UINT32_MAX;
  snprintf(path, sizeof path, "%s%s", root, group);
  for (;;) {
    uint32_t quota = group_quota(path, version);
    if (quota < least) least = quota;
    char *slash = strrchr(path, '/');
    if (strlen(path) <= root_length || !slash || slash < path + root_length) return least;
    *slash = 0;
  }
}

/* Whether `name` is one of the comma-separated `list`. */
static int lists(const char *list, const char *name) {
  size_t length = strlen(name);
  for (; *list; list += strcspn(list, ",") + (list[strcspn(list, ",")] == ','))
    if (strcspn(list, ",") == length && !strncmp(list, name, length)) return 1;
  return 0;
}

static uint32_t quota_threads(void) {
  char text[8192];
  uint32_t least = UINT32_MAX;
  if (!read_text("/proc/self/cgroup", text, sizeof text)) return least;
  for (char *line = text, *next; line && *line; line = next) { /* number:controllers:path */
    next = strchr(line, '\n');
    if (next) *next++ = 0;
    char *controllers = strchr(line, ':');
    char *group = controllers ? strchr(controllers + 1, ':') : NULL;
    if (!group) continue;
    controllers++, *group++ = 0;
    uint32_t quota = UINT32_MAX;
    if (!*controllers)
      quota = path_quota("/sys/fs/cgroup", group, 2);
    else if (lists(controllers, "cpu"))
      quota = path_quota("/sys/fs/cgroup/cpu", group, 1);
    if (quota < least) least = quota;
  }
  return least;
}

uint32_t edgec_host_threads(void) {
  uint32_t threads = affinity_threads(), quota = quota_threads();
  return quota < threads ? quota : threads;
}
#else
uint32_t edgec_host_threads(void) {
  long threads = sysconf(_SC_NPROCESSORS_ONLN);
  return threads > 0 ? (uint32_t)threads : 1;
}
#endif

/* Whether the `length` characters at `word` are one of the words of `line`. */
static int has_word(const char *line, const char *word, size_t length) {
  while (*line && *line != '\n') {
    size_t here = strcspn(line, " \t\n");
    if (here == length && !memcmp(line, word, length)) return 1;
    line += here;
    line += strspn(line, " \t");
  }
  return 0;
}

/* What the kernel passes to a program about an Arm processor (its asm/hwcap.h), by the names of
 * /proc/cpuinfo, which tells a 32-bit program of the 64-bit processor. 32 and more: AT_HWCAP2. */
#if defined(__aarch64__)
static const struct capability {
  const char *name;
  int bit;
} capabilities[] = {{"fp", 0},        {"asimd", 1},     {"crc32", 7},    {"atomics", 8},
                    {"fphp", 9},      {"asimdhp", 10},  {"asimdrdm", 12}, {"asimddp", 20},
                    {"sve", 22},      {"asimdfhm", 23}, {"sve2", 33},    {"i8mm", 45},
                    {"bf16", 46}};
#elif defined(__arm__)
static const struct capability {
  const char *name;
  int bit;
} capabilities[] = {{"vfp", 6},    {"edsp", 7},   {"neon", 12},  {"vfpv3", 13},
                    {"vfpv4", 16}, {"idiva", 17}, {"idivt", 18}, {"vfpd32", 19}};
#endif

/* 1 or 0 where the kernel says whether the processor has a feature, -1 where it does not. */
static int kernel_grants(const char *name, size_t length) {
#if defined(__linux__) && (defined(__aarch64__) || defined(__arm__))
  for (size_t i = 0; i < sizeof capabilities / sizeof capabilities[0]; i++) {
    const struct capability *known = &capabilities[i];
    if (strlen(known->name) == length && !memcmp(known->name, name, length))
      return getauxval(known->bit < 32 ? AT_HWCAP : AT_HWCAP2) >> (known->bit % 32) & 1;
  }
#endif
  (void)name, (void)length;
  return -1;
}

int edgec_host_lacks(const char *features, char *missing, size_t size) {
#if defined(__x86_64__)
  const char *key = "\nflags";
#else
  const char *key = "\nFeatures";
#endif
  char text[16384];
  const char *line = NULL;
  if (*features && read_text("/proc/cpuinfo", text, sizeof text)) line = strstr(text, key);
  if (line && !strchr(line + 1, '\n')) line = NULL;
  while (*features) {
    size_t length = strcspn(features, " ");
    int granted = kernel_grants(features, length);
    if (granted < 0) granted = !line || has_word(line + 1, features, length);
    if (!granted) {
      snprintf(missing, size, "%.*s", (int)length, features);
      return 1;
    }
    features += length + (features[length] == ' ');
  }
  return 0;
}
