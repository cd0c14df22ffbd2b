"""Check images in child processes, which the kernel holds to bounds whatever a file says.

Decoders are C that reads what strangers send. In the worker's own process one could burn CPU for minutes,
take all memory, or crash the worker. So each image gets a process of its own:

    worker  (client.py)   keeps one host, sends it jobs, checks every field of what comes back
    host    (host.py)     has Python and Pillow loaded and no secrets; forks a child for each job
    child   (child.py)    gives up its rights, checks one image, answers, and is gone with all its memory

The bytes travel in files without a name (memfd_create(2)), everything else as lines of JSON. The container is
walked under the bounds of `bounds.survey_bounds`; before a decoder runs they are raised to those of
`bounds.decoding_bounds` for the pixels that the walk has counted. A child that breaks a bound or crashes
costs that upload alone: UndecodableImage. A host that is lost is started again, once for an image; after that
the server is Busy. When the worker dies, the host reads the end of its socket and goes, and the kernel kills
the children.

What it costs, measured by `python -m bench decoding` (2 cores, Linux 6.18, Pillow 13; medians of 7 rounds):

    image        CPU in process   in a child   by the clock
    20 KB PNG        0.2 ms          4.5 ms      0.2 →   4.7 ms
    12 MP JPEG        86 ms           86 ms      147 →  108 ms
    12 MP WebP       320 ms          319 ms      498 →  526 ms
    12 MP AVIF       393 ms          372 ms      713 →  597 ms

That is 4 ms of CPU for an upload, which takes some 7 ms besides, and nothing that grows with the image. The
host takes 0.1 to 0.2 seconds to start, at the first image, and 12 MiB of memory. Hits of a worker on one core
go on at 0.61 of their rate while 12 MP JPEGs are uploaded without a pause; in process it was 0.45.
Starting Python for each image would cost 200 ms, and a child that serves several images would carry memory,
and what a hostile image has done to it, from one to the next. RLIMIT_AS bounds memory and not RLIMIT_DATA,
for which shared mappings do not count; with one heap it is at most 6 % above what decoders really use.
"""
