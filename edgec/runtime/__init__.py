"""The C runtime that goes into every artifact, and the loader that runs artifacts from Python."""
