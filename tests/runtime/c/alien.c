/* A model for a CPU that does not exist. */
#include "program.h"
static const edgec_program program = {.model = EDGEC_MODEL("alien", "fpu_of_tomorrow", "", 0, 0, 0, 0)};
EDGEC_EXPORT_MODEL(alien, program)
