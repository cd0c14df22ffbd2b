"""The servers that ours is compared with. Each serves the files of the directory in BENCH_FILES."""
