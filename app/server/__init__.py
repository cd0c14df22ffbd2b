"""A custom gunicorn worker. An event loop answers cache hits, and threads answer everything else.

Why it exists. gunicorn's gthread worker occupies a thread from the first byte of a request head to the last
byte of the response. So clients that send or read slowly can occupy all threads, and even a cache hit needs a
thread. In this worker, a connection occupies a thread only while the application works on its request.

`python -m bench worker` compared the workers in two runs, with the same application and settings, two workers
on two cores, and medians of five rounds. "Slow heads" are requests whose heads arrive at one byte per second
and never end. "Slow readers" read one byte per second. "Unsent bodies" are requests that announce a body and
never send it. "Other hits" is the rate of cache hits for clients that behave well, relative to the rate
without an attack. It depends on how these clients are spread over the workers.

                                this worker              gthread                   gthread behind nginx
    hits of 20 KB                 11,700/s                 6,700/s                   51,800/s, sent by nginx
    hits of 500 KB                 5,400/s                 3,000 to 3,700/s           3,800/s
    CPU for a hit of 20 KB          141 µs                   246 µs                      19 µs, nginx alone
    /healthz (p99) and other hits, under
      500 slow heads            1-4 ms, 0.61-0.98 ×      20 s, 0                   3-4 ms, 0.98-1.06 ×
      500 slow readers          1-2 ms, 0.62-0.94 ×      20 s, 0                   3-5 ms, 1.03-1.08 ×
      24 unsent bodies          2-3 ms, 0.89-0.92 ×      4 ms-2 s, 0.02-0.62 ×     3-4 ms, 0.99-1.05 ×
      500 unsent bodies        6-14 ms, 0.30-0.73 ×      20 s, 0                   4-5 ms, 0.89-1.04 ×

What is lost without it. If no proxy is in front of gthread, anyone can stop it with 500 connections (20 s is
the timeout of the clients). Behind nginx, gthread is as safe as nginx itself. Many people start this server
without nginx, so the server must be safe on its own. Behind nginx, gthread can be used instead of this
worker: `gunicorn --worker-class gthread wsgi:app` serves uploads, hits and misses just as well
(tests/server/test_gthread.py), and supports TLS and the PROXY protocol, which this worker leaves to a proxy.
However, two things are lost. First, threads that wait for an image model or the store count against THREADS,
while this worker's pool lets other threads run in their place. Second, requests that can't be parsed get
gunicorn's HTML page instead of JSON with a request ID, and no metric counts them.

How it works. gunicorn provides the arbiter, the configuration, the parser and the response. `worker` extends
gunicorn's documented base class for workers. `event_loop` drives the `connections`, and `exchanges` passes
their requests to the application. `response` sends without blocking, and `refusals` answers requests that
never reach the application. gunicorn.conf.py uses `hooks`, `listeners`, `reloading` and `logger`.

The price. This package uses about forty undocumented names from gunicorn, and an upgrade may change any of
them. tests/server/test_gunicorn_contract.py checks each of these names, so after such a change, it is the
first test to fail.
"""
