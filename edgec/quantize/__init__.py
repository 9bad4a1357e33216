"""Quantization after training: calibration, planning, and writing the result as standard ONNX."""
