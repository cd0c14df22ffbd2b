"""The checks that `flask bucket doctor` runs: settings, cache, bucket. docs/doctor.md lists them."""
