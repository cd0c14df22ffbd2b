"""Check images and make variants in child processes whose CPU time and memory are limited by the kernel.

Decoders are written in C and read untrusted files. In the worker's own process, a single file could use the
CPU for minutes, use up all memory, or crash the worker. Therefore, each job is done in a process of its own:

    worker  (client.py)   starts one host, sends it jobs, and validates every field of the reports
    host    (host.py)     has Python and Pillow loaded, but no secrets; forks a child for each job
    child   (host.py)     drops its privileges (confinement.py), does one job, reports and exits

A job is to check an image, to describe it, or to make a variant of it. Children that check uploads have a
higher priority than others.

Images and results are passed in anonymous files (memfd_create(2)). A child never gets a descriptor of a file
in the cache, since it could change the mode and the times even of a file that is open only for reading. All
other data is passed as lines of JSON (protocol.py). While the structure of the file is parsed,
`survey_limits` apply. Before a decoder runs, the limits are raised to `decoding_limits`, which depend on the
number of pixels that the file declares.

If a child exceeds its limits or crashes, only that upload fails, with UndecodableImage. If the host exits
during an upload, it is restarted and the image is checked again. If it exits a second time, the upload fails
with Busy. When the worker dies, the host sees EOF on its socket and exits, and the kernel kills the children.

`python -m bench decoding` compared checks in the worker's own process with checks in a child (2 cores, Linux
6.18, Pillow 13; medians of 3 rounds):

                         CPU time                wall-clock time
    image        in worker    in a child     in worker    in a child
    20 KB PNG       0.9 ms        7.2 ms        0.8 ms        7.0 ms
    12 MP JPEG       90 ms         73 ms         83 ms         71 ms
    12 MP WebP      337 ms        320 ms        334 ms        236 ms
    12 MP AVIF      407 ms        356 ms        257 ms        336 ms

Starting and ending a child costs 6 ms of CPU time, regardless of the size of the image. The host needs 15 MiB
of memory. It starts when the first image arrives, which takes 0.1 to 0.2 seconds.

While 12 MP JPEGs are uploaded without a pause, a worker on one core serves cache hits at 70 % of its usual
rate. While all places make AVIFs of such JPEGs, two workers on two cores serve hits at 89 % of their rate
(`python -m bench variants.pressure`).

Starting Python for each image would cost 200 ms. If one child checked several images, memory and any effects
of a hostile image would carry over from one image to the next. Memory is limited with RLIMIT_AS because
RLIMIT_DATA does not count shared mappings. Since a child has only one heap, the size that RLIMIT_AS counts is
at most 6 % larger than the memory that decoders really use.
"""
