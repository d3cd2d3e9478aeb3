"""The command line, the local stack, the demo, and what spans the parts."""
