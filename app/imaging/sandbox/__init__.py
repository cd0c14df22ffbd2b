"""Check images in child processes whose CPU time and memory are limited by the kernel.

Decoders are written in C and read untrusted files. In the worker's own process, a single file could use the
CPU for minutes, use up all memory, or crash the worker. Therefore, each image is checked in a process of its
own:

    worker  (client.py)   starts one host, sends it jobs, and validates every field of the reports
    host    (host.py)     has Python and Pillow loaded, but no secrets; forks a child for each job
    child   (host.py)     drops its privileges (confinement.py), checks one image, reports and exits

Images are passed in anonymous files (memfd_create(2)), everything else as lines of JSON (protocol.py). While
the container is parsed, `survey_limits` apply. Before a decoder runs, the limits are raised to
`decoding_limits` for the number of pixels in the container.

If a child exceeds its limits or crashes, only that upload fails, with UndecodableImage. If the host exits
during an upload, it is restarted and the image is checked again. If it exits a second time, the upload fails
with Busy. When the worker dies, the host sees EOF on its socket and exits, and the kernel kills the children.

The cost, measured with `python -m bench decoding` (2 cores, Linux 6.18, Pillow 13; medians of 7 rounds):

    image        CPU in process   in a child   wall-clock time
    20 KB PNG        0.2 ms          4.5 ms      0.2 →   4.7 ms
    12 MP JPEG        86 ms           86 ms      147 →  108 ms
    12 MP WebP       320 ms          319 ms      498 →  526 ms
    12 MP AVIF       393 ms          372 ms      713 →  597 ms

A child costs 4 ms of CPU time, regardless of the size of the image. The rest of an upload costs about 7 ms.
The host needs 12 MiB of memory. It takes 0.1 to 0.2 seconds to start, when the first image arrives.

While 12 MP JPEGs are uploaded without a pause, a worker on one core serves cache hits at 61 % of its usual
rate. If it decoded the images in its own process, the rate would be 45 %.

Starting Python for each image would cost 200 ms. If one child checked several images, memory and any effects
of a hostile image would carry over from one image to the next. Memory is limited with RLIMIT_AS because
RLIMIT_DATA does not count shared mappings. With a single heap, RLIMIT_AS counts at most 6 % more than
decoders really use.
"""
