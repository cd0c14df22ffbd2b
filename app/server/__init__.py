"""The gunicorn worker: threads for what takes time, and an event loop that answers cache hits itself.

Why not gunicorn's own gthread? Measured twice by `python -m bench worker`: the same application with the same
settings, two workers on two cores, medians of five rounds. "Other hits" is the rate of other clients' hits,
relative to that without an attack; it depends on how these clients are spread over the workers.

                                this worker              gthread                   gthread behind nginx
    hits of 20 KB                 11,700/s                 6,700/s                   51,800/s, sent by nginx
    hits of 500 KB                 5,400/s                 3,000 to 3,700/s           3,800/s
    CPU for a hit of 20 KB          141 µs                   246 µs                      19 µs, nginx alone
    /healthz (p99) and other hits, under
      500 slow heads            1-4 ms, 0.61-0.98 ×      20 s, 0                   3-4 ms, 0.98-1.06 ×
      500 slow readers          1-2 ms, 0.62-0.94 ×      20 s, 0                   3-5 ms, 1.03-1.08 ×
      24 unsent bodies          2-3 ms, 0.89-0.92 ×      4 ms-2 s, 0.02-0.62 ×     3-4 ms, 0.99-1.05 ×
      500 unsent bodies        6-14 ms, 0.30-0.73 ×      20 s, 0                   4-5 ms, 0.89-1.04 ×

Anybody with 500 connections can stop gthread alone (20 s is the clients' timeout); behind nginx it is as safe
as nginx. Many people start this server without nginx, so it has to be safe by itself: hence this worker.
It builds on gunicorn's documented base class and on its parser and response, not on gthread.
"""
