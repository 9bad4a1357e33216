/* Reads pictures of 8x8 floats from stdin and prints the digit on each, by an exported model. */
#include <stdio.h>

#include "digits_cnn.h"

static int largest(const float *scores, int count) {
  int best = 0;
  for (int i = 1; i < count; i++)
    if (scores[i] > scores[best]) best = i;
  return best;
}

int main(void) {
  char why[256] = "";
  edgec_options options = edgec_default_options();
  options.error = why;
  options.error_size = sizeof why;

  edgec_instance *digits;
  if (edgec_create(edgec_model_digits_cnn(), &options, &digits) != EDGEC_OK) {
    fprintf(stderr, "classify: %s\n", why);
    return 1;
  }

  float image[64], scores[10];
  const void *inputs[] = {image};
  void *outputs[] = {scores};
  if (edgec_input(digits, 0)->bytes != sizeof image ||
      edgec_output(digits, 0)->bytes != sizeof scores) {
    fprintf(stderr, "classify: another model\n");
    return 1;
  }
  while (fread(image, sizeof image, 1, stdin) == 1) {
    if (edgec_run(digits, inputs, outputs, NULL) != EDGEC_OK) {
      fprintf(stderr, "classify: %s\n", edgec_last_error(digits));
      return 1;
    }
    printf("%d\n", largest(scores, 10));
  }
  return edgec_destroy(digits) == EDGEC_OK ? 0 : 1;
}
