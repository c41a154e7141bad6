"""One way of producing a file, all alike.

NAME, and ``connect(servers)`` which returns an object with

* ``produce(topic, values)``: sends them, returns when all are settled, and then how many were acknowledged, or a
  function that counts them;
* ``one(topic, value)``: sends one record and returns once it is acknowledged;
* ``close()``.

Each at the settings that are best for it, acks=1 and no idempotence for all.
"""
