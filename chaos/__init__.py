"""Chaos: the workers on a real broker, killed at seeded instants, and a judge of what came out.

    python -m chaos SEED [--seconds 60] [--rate 2000] [--partitions 4] [--plant BUG]

Theory of operation:

1. `parameters` says what the world is, in plain values; `world` declares it to stream_ml, as a user
   would; `traffic` draws events and labels from the seed, good and bad, and publishes them.
2. `schedule` draws from the seed what is killed when. `fleet` runs the workers and carries it out.
3. `reader` watches committed predictions arrive, as a consumer would, and notes how long none do.
4. When all is worked off, `judge` reads the raw topics and works out from them alone what should
   have come out (`expected`). It shares no code with the stages: its windows are brute force over
   everything that came before, its models river's own, learning alone.
5. `planted_bugs` breaks a worker on purpose, from outside: a judge that lets that pass is no judge.

Everything is drawn from the seed but time itself: what lies on the log in which order, and how
far a worker was when it died, is the machine's. The judgement holds for every interleaving.
"""
