"""Check images in child processes whose CPU time and memory the kernel limits, whatever a file says.

Decoders are written in C and read untrusted files. In the worker's own process, one file could use CPU for
minutes, take all memory, or crash the worker. So each image gets a process of its own:

    worker  (client.py)   keeps one host, sends it jobs, checks every field of the answers
    host    (host.py)     has Python and Pillow loaded and no secrets; forks a child for each job
    child   (host.py)     gives up its rights (confinement.py), checks one image, answers and exits

Images travel in anonymous files (memfd_create(2)), everything else as lines of JSON (protocol.py).
`survey_limits` apply while the container is parsed; before a decoder runs they are raised to
`decoding_limits` for the pixels that were counted. If a child exceeds its limits or crashes, only that upload
fails: UndecodableImage. A host that exits is restarted, once for each image; if it exits again the upload
fails with Busy. When the worker dies, the host reads the end of its socket and exits, and the kernel kills
the children.

The cost, measured by `python -m bench decoding` (2 cores, Linux 6.18, Pillow 13; medians of 7 rounds):

    image        CPU in process   in a child   wall-clock time
    20 KB PNG        0.2 ms          4.5 ms      0.2 →   4.7 ms
    12 MP JPEG        86 ms           86 ms      147 →  108 ms
    12 MP WebP       320 ms          319 ms      498 →  526 ms
    12 MP AVIF       393 ms          372 ms      713 →  597 ms

A child costs 4 ms of CPU, whatever the size of the image; the rest of an upload costs some 7 ms. The
host takes 0.1 to 0.2 seconds to start, at the first image, and 12 MiB of memory. A worker on one core serves
hits at 0.61 of its usual rate while 12 MP JPEGs are uploaded without a pause; in process it was 0.45.
Starting Python for each image would cost 200 ms. Using one child for several images would carry memory, and
any effect of a hostile image, from one to the next. Memory is limited with RLIMIT_AS because RLIMIT_DATA does
not count shared mappings; with one heap it counts at most 6 % more than decoders really use.
"""
