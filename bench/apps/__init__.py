"""The servers that ours is measured against; each serves the files below the directory in BENCH_FILES."""
