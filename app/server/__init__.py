"""A custom gunicorn worker: threads for what takes time, and an event loop that answers cache hits.

Why it exists. gunicorn's gthread occupies a thread for each request from the first byte of its head to the
last byte of its response, so clients that send or read slowly occupy all of them, and each hit is handed to
a thread. Here a connection occupies a thread only while the application works. Measured twice by `python -m
bench worker`: the same application with the same settings, two workers on two cores, medians of five
rounds. "Other hits" is the rate of other clients' hits, relative to that without an attack; it depends on
how these clients are spread over the workers.

                                this worker              gthread                   gthread behind nginx
    hits of 20 KB                 11,700/s                 6,700/s                   51,800/s, sent by nginx
    hits of 500 KB                 5,400/s                 3,000 to 3,700/s           3,800/s
    CPU for a hit of 20 KB          141 µs                   246 µs                      19 µs, nginx alone
    /healthz (p99) and other hits, under
      500 slow heads            1-4 ms, 0.61-0.98 ×      20 s, 0                   3-4 ms, 0.98-1.06 ×
      500 slow readers          1-2 ms, 0.62-0.94 ×      20 s, 0                   3-5 ms, 1.03-1.08 ×
      24 unsent bodies          2-3 ms, 0.89-0.92 ×      4 ms-2 s, 0.02-0.62 ×     3-4 ms, 0.99-1.05 ×
      500 unsent bodies        6-14 ms, 0.30-0.73 ×      20 s, 0                   4-5 ms, 0.89-1.04 ×

What is lost without it. Anybody with 500 connections can stop gthread when nothing stands in front of it
(20 s is the clients' timeout); behind nginx it is as safe as nginx. Many people start this server without
nginx, so the server has to be safe alone. Behind nginx the worker can be replaced: `gunicorn --worker-class
gthread wsgi:app` serves uploads, hits and misses just as well (tests/server/test_gthread.py), and speaks
TLS and the PROXY protocol, which this worker leaves to a proxy. Two things then are missing. Threads that
wait for an image model or for the store count against THREADS, since only this worker's pool replaces them.
And requests that can't be parsed get gunicorn's own HTML page instead of JSON with a request id, and no
metric counts them.

What it is made of. gunicorn keeps its arbiter, its configuration, its parser and its response. `worker`
adapts gunicorn's documented base class, and `event_loop` drives the `connections`, whose requests
`exchanges` passes to the application. `response` sends without blocking, `refusals` answers what never
reaches the application, `hooks`, `listeners`, `reloading` and `logger` are what gunicorn.conf.py sets.

The price. Some forty of gunicorn's names that are used here are not documented. An upgrade of gunicorn may
change any of them: tests/server/test_gunicorn_contract.py names each one, so that it fails there first.
"""
