"""From kernels and a plan to files: C tables, objects, libraries, the artifact, exports."""
