"""Plain C again, which copies each record before it hands it over: what a producer can reach that gives memory back."""

import functools

from benchmarks.peers import plain_c

NAME = "plain C that copies"
fits = plain_c.fits
command = functools.partial(plain_c.command, copying=True)
