//! Chooses and runs the renderer for a path, and records every input it read.
