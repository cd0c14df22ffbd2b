"""Check images in child processes whose CPU time and memory the kernel limits, whatever a file says.

Decoders are written in C and read what strangers send. In the worker's own process one could use CPU for
minutes, take all memory, or crash the worker. So each image gets its own process:

    worker  (client.py)   keeps one host, sends it jobs, checks every field of what comes back
    host    (host.py)     has Python and Pillow loaded and no secrets; forks a child for each job
    child   (child.py)    gives up its rights, checks one image, answers and ends, which frees its memory

Images travel in unnamed files (memfd_create(2)), everything else as lines of JSON. `bounds.survey_bounds`
apply while the container is read; before a decoder runs they are raised to `bounds.decoding_bounds` for the
pixels that were counted. If a child exceeds its bounds or crashes, that upload alone fails: UndecodableImage.
A host that ends is started again, once for each image; if it ends again the upload fails with Busy. When the
worker dies, the host reads the end of its socket and exits, and the kernel kills the children.

What it costs, measured by `python -m bench decoding` (2 cores, Linux 6.18, Pillow 13; medians of 7 rounds):

    image        CPU in process   in a child   by the clock
    20 KB PNG        0.2 ms          4.5 ms      0.2 →   4.7 ms
    12 MP JPEG        86 ms           86 ms      147 →  108 ms
    12 MP WebP       320 ms          319 ms      498 →  526 ms
    12 MP AVIF       393 ms          372 ms      713 →  597 ms

A child costs 4 ms of CPU, whatever the size of the image; the rest of an upload costs some 7 ms. The
host takes 0.1 to 0.2 seconds to start, at the first image, and 12 MiB of memory. Hits of a worker on one core
keep 0.61 of their rate while 12 MP JPEGs are uploaded without a pause; in process it was 0.45.
Starting Python for each image would cost 200 ms, and a child for several images would carry memory, and
whatever a hostile image did to it, from one to the next. RLIMIT_AS limits memory rather than RLIMIT_DATA,
which does not count shared mappings; with one heap it counts at most 6 % more than decoders really use.
"""
