"""Where the error of a quantized model comes from: a float and a quantized model, side by side."""
