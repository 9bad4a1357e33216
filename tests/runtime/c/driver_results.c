/* What a run gives: results of their own size, golden data, times. */
#include <math.h>
#include <string.h>

#include "driver.h"

void selftest(void) {
  static struct {
    float x[SIZE], y[SIZE];
  } golden __attribute__((aligned(64)));
  edgec_instance *alpha = make(edgec_model_alpha(), 2);
  for (int i = 0; i < SIZE; i++) golden.x[i] = 1, golden.y[i] = 2 + (float)i;
  CHECK(edgec_selftest(alpha, &golden, sizeof golden) == EDGEC_OK);
  golden.y[1000] *= 1.00005f;
  CHECK(edgec_selftest(alpha, &golden, sizeof golden) == EDGEC_OK);
  golden.y[1000] *= 1.001f;
  CHECK(edgec_selftest(alpha, &golden, sizeof golden) == EDGEC_MISMATCH);
  CHECK(strstr(edgec_last_error(alpha), "output 'y' is 1002 at element 1000, golden is 1003"));
  golden.y[1000] = NAN;
  CHECK(edgec_selftest(alpha, &golden, sizeof golden) == EDGEC_MISMATCH);
  golden.y[1000] = INFINITY;
  CHECK(edgec_selftest(alpha, &golden, sizeof golden) == EDGEC_MISMATCH);
  golden.x[1000] = NAN, golden.y[1000] = -NAN;
  CHECK(edgec_selftest(alpha, &golden, sizeof golden) == EDGEC_OK);
  CHECK(edgec_selftest(alpha, &golden, sizeof golden - 64) == EDGEC_INVALID);
  CHECK(edgec_selftest(alpha, golden.x + 1, sizeof golden) == EDGEC_INVALID);
  edgec_destroy(alpha);
}

/* The self-test starts from a zero state, and leaves one. */
void selftest_state(void) {
  static struct {
    float x[4][16];
    unsigned char flags[64];
    float total[16], reversed[4][16], twice[16];
    int64_t count[8];
  } golden __attribute__((aligned(64)));
  edgec_instance *steps = make(edgec_model_steps(), 1);
  int64_t count;
  static float total[16], reversed[64], twice[16];
  const void *inputs[] = {golden.x, golden.flags};
  void *outputs[] = {total, reversed, twice, &count};
  golden.count[0] = 1;
  for (int i = 0; i < 3; i++) CHECK(edgec_run(steps, inputs, outputs, NULL) == EDGEC_OK);
  CHECK(count == 3);
  CHECK(edgec_selftest(steps, &golden, sizeof golden) == EDGEC_OK);
  CHECK(edgec_selftest(steps, &golden, sizeof golden - 56) == EDGEC_OK); /* no padding at the end */
  CHECK(edgec_run(steps, inputs, outputs, NULL) == EDGEC_OK && count == 1);
  golden.count[0] = 2;
  CHECK(edgec_selftest(steps, &golden, sizeof golden) == EDGEC_MISMATCH);
  CHECK(strstr(edgec_last_error(steps), "output 'count' is 1 at element 0, golden is 2"));
  edgec_destroy(steps);
}

/* An output whose extent the input decides: asked for after the run, its bound before. */
void results(void) {
  edgec_instance *sift = make(edgec_model_sift(), 1);
  const edgec_tensor *bound = edgec_output(sift, 0), *kept = edgec_result(sift, 0);
  static float x[2000][3], y[2000][3], sum[3];
  const void *inputs[] = {x};
  void *outputs[] = {y, sum};
  CHECK(bound->bytes == sizeof y && kept->bytes == sizeof y && kept->shape[0] == 2000);
  x[7][0] = x[1999][0] = 1, x[1999][2] = 5;
  CHECK(edgec_run(sift, inputs, outputs, NULL) == EDGEC_OK);
  CHECK(kept->bytes == 2 * sizeof y[0] && kept->shape[0] == 2 && kept->shape[1] == 3);
  CHECK(!strcmp(kept->name, "kept") && y[1][2] == 5 && sum[0] == 2);
  CHECK(bound->bytes == sizeof y && bound->shape[0] == 2000); /* what buffers must hold */
  CHECK(edgec_result(sift, 1)->bytes == sizeof sum && !edgec_result(sift, 2));
  x[0][0] = NAN;
  CHECK(edgec_run(sift, inputs, outputs, NULL) == EDGEC_FAILED && kept->shape[0] == 2);
  memset(x, 0, sizeof x);
  CHECK(edgec_run(sift, inputs, outputs, NULL) == EDGEC_OK);
  CHECK(kept->shape[0] == 0 && kept->bytes == 0);
  edgec_destroy(sift);
}

/* Golden data hold 4093 elements of an input at most, and extents. */
void selftest_sift(void) {
  enum { HEAD = 4093 };
  static struct {
    float x[4096];
    int64_t kept[8];
    float y[16], sum[16];
  } golden __attribute__((aligned(64)));
  edgec_instance *sift = make(edgec_model_sift(), 1);
  golden.x[3] = 2, golden.x[4] = 3; /* row 1; repeated as elements 4096 and 4097, columns 1 and 2 */
  golden.kept[0] = 1, golden.y[0] = 2, golden.y[1] = 3;
  golden.sum[0] = 2, golden.sum[1] = 3 + 2, golden.sum[2] = 3;
  CHECK(edgec_selftest(sift, &golden, sizeof golden) == EDGEC_OK);
  CHECK(edgec_result(sift, 0)->shape[0] == 2000);
  golden.kept[0] = 0;
  CHECK(edgec_selftest(sift, &golden, sizeof golden) == EDGEC_INVALID); /* no room for y */
  golden.x[3] = 0, golden.kept[0] = 1;
  CHECK(edgec_selftest(sift, &golden, sizeof golden) == EDGEC_MISMATCH);
  CHECK(strstr(edgec_last_error(sift), "output 'kept' has extent 0 on axis 0, golden is 1"));
  CHECK(edgec_selftest(sift, &golden, 64) == EDGEC_INVALID);
  edgec_destroy(sift);
}

/* The time of every step, 0 for those that hold others or are skipped. */
void profile(void) {
  edgec_instance *steps = make(edgec_model_steps(), 1);
  static float x[4][16], total[16], reversed[64], twice[16];
  static unsigned char flags[4] = {1, 1, 1, 1};
  int64_t count;
  uint64_t times[14];
  const void *inputs[] = {x, flags};
  void *outputs[] = {total, reversed, twice, &count};
  CHECK(edgec_profile(steps, inputs, outputs, times, 14) == EDGEC_OK && count == 1);
  for (int i = 0; i < 14; i++) {
    int silent = i == 1 || i == 2 || i == 4 || i == 7 || i == 8 || i == 11;
    CHECK(silent ? !times[i] : times[i] > 0 && times[i] < 10000000000u);
  }
  CHECK(edgec_profile(steps, inputs, outputs, times, 13) == EDGEC_INVALID);
  CHECK(edgec_profile(steps, inputs, NULL, times, 14) == EDGEC_INVALID);
  times[0] = 0;
  CHECK(edgec_run(steps, inputs, outputs, NULL) == EDGEC_OK && !times[0]);
  edgec_destroy(steps);
}
