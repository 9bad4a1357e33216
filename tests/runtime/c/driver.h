/* What the cases of driver.c share. */
#ifndef DRIVER_H
#define DRIVER_H

#include <stdio.h>
#include <unistd.h>

#include "edgec.h"

extern const edgec_model *edgec_model_alpha(void);
extern const edgec_model *edgec_model_steps(void);
extern const edgec_model *edgec_model_faults(void);
extern const edgec_model *edgec_model_alien(void);
extern const edgec_model *edgec_model_sift(void);
#ifdef TWO_SCALES
extern const edgec_model *edgec_model_beta(void);
#endif

enum { SIZE = 1024, WEIGHTS = 16 + SIZE };
enum { NOTHING, FAIL, FAIL_IN_TASK, WANT_SCRATCH, SLEEP, ROUNDING, NESTED, MANY_TASKS, STACKED };

#define CHECK(condition)                                                                    \
  do {                                                                                      \
    if (!(condition)) {                                                                     \
      fprintf(stderr, "%s:%d: %s\n", __func__, __LINE__, #condition);                       \
      _exit(1);                                                                             \
    }                                                                                       \
  } while (0)

/* Options with weights, and so many threads. */
edgec_options options_with(uint32_t threads);
edgec_instance *make(const edgec_model *model, uint32_t threads);

/* Whether `scale` computes factor * x + [0, 1, 2, ...]. */
void check_scale(edgec_instance *scale, float factor, float seed);

/* Runs `faults` in a mode, the second list of names above. */
edgec_status obey(edgec_instance *faults, int mode, float y[8]);

/* Cases of driver_threads.c. */
void two_threads(void);
void busy(void);
void lazy_threads(void);
void forks(void);
void signals(void);
void parallel_for(void);
void idle(void);

/* Cases of driver_results.c. */
void selftest(void);
void selftest_state(void);
void results(void);
void selftest_sift(void);
void profile(void);

#endif
